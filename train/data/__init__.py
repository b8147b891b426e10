"""Where training clips come from: data sets in their official layouts, augmentation, sampling."""
