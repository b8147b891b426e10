"""The methods by the names that every command uses."""

METHODS = {
    "stm": "STM (Oh et al., ICCV 2019)",
    "gfrtm": "Reuse-VOS, G-FRTM (Park et al., CVPR 2021)",
}
