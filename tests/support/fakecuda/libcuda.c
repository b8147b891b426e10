/* A CUDA driver whose device memory is host memory and whose streams do nothing until somebody
 * waits for them: what is looked at too early is garbage.
 *
 * PyCUDA and cuda-python are loaded on top of it unchanged. It follows the documentation of the
 * driver API where the package relies on it, and is as strict: a current context where one is
 * needed, nothing unsafe while a stream is captured, no times of events that have not happened.
 * What is allowed and wrong all the same, such as freeing memory that waiting work still uses, it
 * writes down; `fake_faults` gives it. Every call that matters is a line of `fake_log`.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Result;
typedef unsigned long long Pointer;
typedef void (*Host)(void *);

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, INVALID_HANDLE = 400,
       NOT_FOUND = 500, NOT_READY = 600, UNSUPPORTED_IN_CAPTURE = 900, CAPTURE_INVALIDATED = 901 };
#define GARBAGE 0xCD
#define TOTAL (64ull << 20)

/* ---- what is written down */

static char log_text[1 << 22], fault_text[1 << 16];
static size_t log_size, fault_size;

static void append(char *text, size_t *size, size_t room, const char *format, va_list arguments) {
  if (*size + 256 > room) return;
  *size += vsnprintf(text + *size, 255, format, arguments);
  text[(*size)++] = '\n';
  text[*size] = 0;
}
static void say(const char *format, ...) {
  va_list arguments; va_start(arguments, format);
  append(log_text, &log_size, sizeof log_text, format, arguments); va_end(arguments);
}
static void fault(const char *format, ...) {
  va_list arguments; va_start(arguments, format);
  append(fault_text, &fault_size, sizeof fault_text, format, arguments); va_end(arguments);
}
const char *fake_log(void) { return log_text; }
const char *fake_faults(void) { return fault_text; }
void fake_forget(void) { log_size = fault_size = 0; log_text[0] = fault_text[0] = 0; }

/* ---- memory: blocks of the device and page-locked ones */

typedef struct Block { char *start; size_t size; int on_device; struct Block *next; } Block;
static Block *blocks;
static size_t used;

static Block *block_of(const void *address, size_t size, int on_device) {
  for (Block *b = blocks; b; b = b->next)
    if (b->on_device == on_device && (char *)address >= b->start
        && (char *)address + size <= b->start + b->size) return b;
  return 0;
}
static void *new_block(size_t size, int on_device) {
  Block *b = malloc(sizeof *b);
  *b = (Block){aligned_alloc(512, (size + 511) / 512 * 512), size, on_device, blocks};
  memset(b->start, GARBAGE, size);
  blocks = b;
  if (on_device) used += size;
  return b->start;
}

/* ---- streams: queues of work */

enum Kind { COPY_IN, COPY_OUT, COPY, CALL, RECORD };
static const char *names[] = {"in", "out", "copy", "call", "record"};
typedef struct Event { unsigned long asked, done; float time; } Event;
typedef struct Work {
  enum Kind kind; char *target; const char *source; size_t size;
  Host function; void *data; Event *event; unsigned long serial; struct Work *next;
} Work;
typedef struct Stream {
  unsigned flags; Work *first, *last; int capturing, spoiled; Work *graph; struct Stream *next;
} Stream;
static Stream *streams;
static __thread Stream *captured_here;
static unsigned long serials;
static float now;

static void push(Work **first, Work **last, Work work) {
  Work *w = malloc(sizeof *w);
  *w = work; w->next = 0;
  if (*last) (*last)->next = w; else *first = w;
  *last = w;
}
static void put(Stream *s, Work work) {
  say("%s%s %zu", s->capturing ? "capture " : "", names[work.kind], work.size);
  if (work.kind == RECORD && !s->capturing) work.serial = work.event->asked = ++serials;
  if (!s->capturing) { push(&s->first, &s->last, work); return; }
  Work *last = s->graph;
  while (last && last->next) last = last->next;
  push(&s->graph, &last, work);
}
static int is_there(const Work *w, const void *address, int on_device) {
  if (block_of(address, w->size, on_device)) return 1;
  fault("%s of %zu bytes at %s that is not allocated", names[w->kind], w->size,
        on_device ? "device memory" : "page-locked memory");
  return 0;
}
static void do_work(const Work *w) {
  now += 1;
  switch (w->kind) {
    case COPY_IN: if (!is_there(w, w->target, 1) || !is_there(w, w->source, 0)) return; break;
    case COPY_OUT: if (!is_there(w, w->source, 1) || !is_there(w, w->target, 0)) return; break;
    case COPY: if (!is_there(w, w->source, 1) || !is_there(w, w->target, 1)) return; break;
    case CALL: w->function(w->data); return;
    case RECORD:
      if (w->event->done < w->serial) { w->event->done = w->serial; w->event->time = now; }
      return;
  }
  memmove(w->target, w->source, w->size);
}
/* until: an event, or NULL for all. */
static void run(Stream *s, const Event *until) {
  while (s->first && !(until && until->done >= until->asked)) {
    Work *w = s->first;
    s->first = w->next;
    if (!s->first) s->last = 0;
    do_work(w);
    free(w);
  }
}
static void run_all(const Event *until) {
  for (Stream *s = streams; s; s = s->next) run(s, until);
}
static int waits_for(const Block *b) {
  for (Stream *s = streams; s; s = s->next)
    for (Work *w = s->first; w; w = w->next) {
      const char *ends[] = {w->target, w->source};
      for (int i = 0; i < 2; i++)
        if (ends[i] >= b->start && ends[i] < b->start + b->size) return 1;
    }
  return 0;
}
static Result free_block(void *address, int on_device) {
  for (Block **link = &blocks; *link; link = &(*link)->next) {
    Block *b = *link;
    if (b->start != (char *)address || b->on_device != on_device) continue;
    if (waits_for(b)) fault("%s freed with work waiting for it", on_device ? "device memory" : "page-locked memory");
    if (on_device) used -= b->size;
    *link = b->next;
    memset(b->start, GARBAGE, b->size);
    free(b->start); free(b);
    return OK;
  }
  fault("freed what is not allocated");
  return INVALID_VALUE;
}

/* ---- contexts: the primary one, and a stack per thread */

static int retained;
static __thread int depth;
#define PRIMARY ((void *)0x1000)
#define NEEDS_CONTEXT do { if (!depth || !retained) { fault("%s without a context", __func__); return INVALID_CONTEXT; } } while (0)
/* What CUDA forbids while the thread captures a stream. */
#define UNSAFE do { if (captured_here) { captured_here->spoiled = 1; return UNSUPPORTED_IN_CAPTURE; } } while (0)

Result cuInit(unsigned flags) { return OK; }
Result cuDriverGetVersion(int *version) { *version = 13000; return OK; }
Result cuDeviceGetCount(int *count) { *count = 1; return OK; }
Result cuDeviceGet(int *device, int ordinal) { *device = 0; return ordinal ? INVALID_VALUE : OK; }
Result cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "NVIDIA Fake"); return OK; }
Result cuDeviceComputeCapability(int *major, int *minor, int device) { *major = 8; *minor = 9; return OK; }
Result cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = TOTAL; return OK; }
Result cuDeviceGetAttribute(int *value, int attribute, int device) { *value = 1; return OK; }
Result cuDevicePrimaryCtxRetain(void **context, int device) {
  retained++; *context = PRIMARY; say("retain"); return OK;
}
Result cuDevicePrimaryCtxRelease_v2(int device) {
  say("release");
  if (!retained) return INVALID_CONTEXT;
  if (--retained) return OK;
  depth = 0; /* what is no more is not current either */
  for (Block *b = blocks; b; b = b->next)
    if (b->on_device) fault("the context went with memory in use");
  return OK;
}
Result cuCtxPushCurrent_v2(void *context) { depth++; say("push"); return OK; }
Result cuCtxPopCurrent_v2(void **context) {
  if (!depth) return INVALID_CONTEXT;
  depth--; say("pop");
  if (context) *context = PRIMARY;
  return OK;
}
Result cuCtxGetCurrent(void **context) { *context = depth ? PRIMARY : 0; return OK; }
Result cuCtxGetDevice(int *device) { NEEDS_CONTEXT; *device = 0; return OK; }
Result cuCtxSynchronize(void) { NEEDS_CONTEXT; UNSAFE; run_all(0); return OK; }

Result cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
  NEEDS_CONTEXT; *total = TOTAL; *free_bytes = TOTAL - used; return OK;
}
Result cuMemAlloc_v2(Pointer *pointer, size_t size) {
  NEEDS_CONTEXT; UNSAFE;
  if (!size) return INVALID_VALUE;
  if (used + size > TOTAL) return OUT_OF_MEMORY;
  *pointer = (Pointer)new_block(size, 1); say("+memory %zu", size); return OK;
}
Result cuMemFree_v2(Pointer pointer) { NEEDS_CONTEXT; UNSAFE; say("-memory"); return free_block((void *)pointer, 1); }
Result cuMemHostAlloc(void **pointer, size_t size, unsigned flags) {
  NEEDS_CONTEXT; UNSAFE; *pointer = new_block(size, 0); say("+locked %zu", size); return OK;
}
Result cuMemFreeHost(void *pointer) { NEEDS_CONTEXT; UNSAFE; say("-locked"); return free_block(pointer, 0); }
Result cuMemcpyHtoDAsync_v2(Pointer target, const void *source, size_t size, Stream *s) {
  NEEDS_CONTEXT; put(s, (Work){.kind = COPY_IN, .target = (char *)target, .source = source, .size = size}); return OK;
}
Result cuMemcpyDtoHAsync_v2(void *target, Pointer source, size_t size, Stream *s) {
  NEEDS_CONTEXT;
  memset(target, GARBAGE, size); /* until it has happened */
  put(s, (Work){.kind = COPY_OUT, .target = target, .source = (char *)source, .size = size}); return OK;
}
Result cuMemcpyDtoDAsync_v2(Pointer target, Pointer source, size_t size, Stream *s) {
  NEEDS_CONTEXT; put(s, (Work){.kind = COPY, .target = (char *)target, .source = (char *)source, .size = size}); return OK;
}

Result cuStreamCreate(Stream **stream, unsigned flags) {
  NEEDS_CONTEXT;
  *stream = calloc(1, sizeof **stream);
  (*stream)->flags = flags; (*stream)->next = streams; streams = *stream;
  say("+stream %u", flags); return OK;
}
Result cuStreamDestroy_v2(Stream *s) {
  NEEDS_CONTEXT; say("-stream");
  run(s, 0);
  for (Stream **link = &streams; *link; link = &(*link)->next)
    if (*link == s) { *link = s->next; break; }
  return OK;
}
Result cuStreamSynchronize(Stream *s) { NEEDS_CONTEXT; UNSAFE; say("wait"); run(s, 0); return OK; }
Result cuStreamQuery(Stream *s) { NEEDS_CONTEXT; UNSAFE; return s->first ? NOT_READY : OK; }
Result cuStreamIsCapturing(Stream *s, int *status) {
  *status = s->spoiled ? 2 : s->capturing; return OK;
}
Result cuLaunchHostFunc(Stream *s, Host function, void *data) {
  NEEDS_CONTEXT; put(s, (Work){.kind = CALL, .function = function, .data = data}); return OK;
}

/* Events are never freed: work may still name them. */
Result cuEventCreate(Event **event, unsigned flags) {
  NEEDS_CONTEXT; *event = calloc(1, sizeof **event); say("+event"); return OK;
}
Result cuEventDestroy_v2(Event *event) { NEEDS_CONTEXT; say("-event"); return OK; }
Result cuEventRecord(Event *event, Stream *s) {
  NEEDS_CONTEXT; put(s, (Work){.kind = RECORD, .event = event}); return OK;
}
Result cuEventSynchronize(Event *event) {
  NEEDS_CONTEXT; UNSAFE;
  if (event->done < event->asked) { say("wait for an event"); run_all(event); }
  return OK;
}
Result cuEventQuery(Event *event) { NEEDS_CONTEXT; UNSAFE; return event->done < event->asked ? NOT_READY : OK; }
Result cuEventElapsedTime_v2(float *milliseconds, Event *start, Event *end) {
  NEEDS_CONTEXT;
  if (!start->asked || !end->asked) return INVALID_HANDLE;
  if (start->done < start->asked || end->done < end->asked) { fault("time of an event that has not happened"); return NOT_READY; }
  *milliseconds = end->time - start->time; return OK;
}

/* ---- graphs: work that is kept */

Result cuStreamBeginCapture_v2(Stream *s, int mode) {
  if (s->capturing) return INVALID_VALUE;
  s->capturing = 1; s->spoiled = 0; s->graph = 0; captured_here = s;
  say("begin capture %d", mode); return OK;
}
Result cuStreamEndCapture(Stream *s, void **graph) {
  if (!s->capturing) return INVALID_VALUE;
  say("+graph");
  s->capturing = 0; captured_here = 0;
  if (s->spoiled) { s->spoiled = 0; *graph = 0; return CAPTURE_INVALIDATED; }
  Work **holder = malloc(sizeof *holder);
  *holder = s->graph; *graph = holder; return OK;
}
Result cuGraphInstantiateWithFlags(void **executable, Work **graph, unsigned long long flags) {
  Work **holder = malloc(sizeof *holder);
  *holder = *graph; *executable = holder; say("+executable"); return OK;
}
Result cuGraphLaunch(Work **executable, Stream *s) {
  if (!*executable) fault("launched a graph that is empty or gone");
  say("launch");
  for (Work *w = *executable; w; w = w->next) put(s, *w);
  return OK;
}
Result cuGraphDestroy(Work **graph) { say("-graph"); free(graph); return OK; }
Result cuGraphExecDestroy(Work **executable) { say("-executable"); *executable = 0; return OK; }

Result cuGetErrorName(int error, const char **name) { *name = error ? "CUDA_ERROR_FAKE" : "CUDA_SUCCESS"; return OK; }
Result cuGetErrorString(int error, const char **text) {
  *text = error == OUT_OF_MEMORY ? "out of memory" : error == NOT_READY ? "device not ready"
        : error == INVALID_CONTEXT ? "invalid device context" : "error of the fake driver";
  return OK;
}

/* cuda-python asks for functions by their plain names. */
Result cuGetProcAddress_v2(const char *symbol, void **function, int version, unsigned long long flags, int *status) {
  static void *self;
  Dl_info info;
  if (!self && dladdr((void *)cuInit, &info)) self = dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
  const char *suffixes[] = {"_v3", "_v2", ""};
  *function = 0;
  for (int i = 0; i < 3 && !*function; i++) {
    char name[128];
    snprintf(name, sizeof name, "%s%s", symbol, suffixes[i]);
    *function = dlsym(self, name);
  }
  if (status) *status = *function ? 0 : 1;
  return *function ? OK : NOT_FOUND;
}
Result cuGetProcAddress(const char *symbol, void **function, int version, unsigned long long flags) {
  return cuGetProcAddress_v2(symbol, function, version, flags, 0);
}
