"""The methods by the names that every command uses."""

METHODS = {
    "stm": "STM (Oh et al., ICCV 2019)",
    "rmnet": "RMNet (Xie et al., CVPR 2021)",
}
