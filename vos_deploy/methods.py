"""The methods by the names that every command uses."""

METHODS = {
    "stm": "STM (Oh et al., ICCV 2019)",
    "rmnet": "RMNet (Xie et al., CVPR 2021)",
    "rde": "RDE-VOS (Li et al., CVPR 2022)",
    "imsfr": "IMSFR (Dang et al., TIP 2023)",
    "gfrtm": "Reuse-VOS, G-FRTM (Park et al., CVPR 2021)",
}
