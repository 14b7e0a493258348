"""Until the job uses :class:`mixtura.folder.layout.RunFolder`: the names that it used."""

from mixtura.folder.io import (
    as_json as as_json,
)
from mixtura.folder.io import (
    as_safetensors as as_safetensors,
)
from mixtura.folder.io import (
    content_of as content_of,
)
from mixtura.folder.io import (
    plain as plain,
)
from mixtura.folder.io import (
    read_json as read_json,
)
from mixtura.folder.io import (
    read_lines as read_lines,
)
from mixtura.folder.io import (
    read_tensors as read_tensors,
)
from mixtura.folder.io import (
    write_json as write_json,
)
from mixtura.folder.io import (
    write_lines as write_lines,
)
from mixtura.folder.io import (
    write_tensors as write_tensors,
)
from mixtura.folder.models import FORMAT as FORMAT
from mixtura.folder.models import load_model as load_model
from mixtura.folder.models import save_model as save_model
from mixtura.ground.machine import write as write


def check_format(out):  # noqa: ANN001, ANN201, D103
    from mixtura.folder.layout import RunFolder

    RunFolder(out).check_format()
