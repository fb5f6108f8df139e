"""Write tests/data/pytorch/: a checkpoint as torch.save makes it, and the values that it holds.

    python tests/golden/make_pytorch_file.py

Needs: torch. The checkpoint is what a state_dict may hold: parameters, two tensors of one storage, types that
are mapped and one that is not, and the attributes that a state_dict carries.
"""

from pathlib import Path

import numpy as np
import torch

OUT = Path(__file__).parents[1] / "data" / "pytorch"


def main() -> None:
    """Write both files."""
    torch.manual_seed(20260104)
    module = torch.nn.Linear(6, 4)
    state = module.state_dict()
    shared = torch.randn(10, 3)
    state["whole"] = shared
    state["rows"] = shared[4:7]
    state["half"] = torch.randn(5).half()
    state["brain"] = torch.randn(2, 3, 2).bfloat16()
    state["ids"] = torch.arange(7)
    state["parameter"] = torch.nn.Parameter(torch.randn(1, 4))
    state["crossed"] = torch.randn(3, 5).T.contiguous()
    OUT.mkdir(parents=True, exist_ok=True)
    torch.save(state, OUT / "pytorch_model.bin")
    values = {name: value.detach().float().numpy() for name, value in state.items() if name != "ids"}
    np.savez_compressed(OUT / "values.npz", **values)


if __name__ == "__main__":
    main()
