import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def parent() -> Iterator[Path]:
    """A folder that every user may pass, unlike pytest's own: root's services run as `nobody`."""
    folder = Path(tempfile.mkdtemp(prefix="countinghouse-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)
