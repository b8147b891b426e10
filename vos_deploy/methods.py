"""The methods by the names that every command uses."""

METHODS = {
    "stm": "STM (Oh et al., ICCV 2019)",
}
