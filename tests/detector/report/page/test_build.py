"""A page is one file that fetches nothing, whatever names its data holds."""

import base64
import hashlib
import json
import re

import pytest

from detector.report.page.build import to_script_json, write_page

NASTY = "</script><script>alert(1)</script>\"'&<!--%%SCRIPT%%\u2028é日本"


def test_json_cannot_leave_its_element_and_means_the_same():
    text = to_script_json({"name": NASTY, "values": [1, None, 0.5]})
    assert not set("<>&\u2028") & set(text) and json.loads(text) == {"name": NASTY, "values": [1, None, 0.5]}


def test_numbers_that_json_does_not_know_are_refused():
    with pytest.raises(ValueError):
        to_script_json({"AP": float("nan")})


@pytest.mark.parametrize("name", ["view", "report"])
def test_a_page_stands_alone(tmp_path, name):
    path = tmp_path / "page.html"
    write_page(path, name, NASTY, {"name": NASTY})
    text = path.read_text()
    assert text.count("<script>") == 1 and "alert(1)</script>" not in text and "<title>&lt;/script&gt;" in text
    assert json.loads(re.search(r'id="data">(.*?)</script>', text).group(1)) == {"name": NASTY}
    assert not re.search(r"""(src|href)=["']?(https?:)?//|@import|url\(["']?(https?:)?//|fetch\(|XMLHttpRequest""", text)
    script, style = re.search(r"<script>(.*)</script>", text, re.DOTALL), re.search(r"<style>(.*)</style>", text, re.DOTALL)
    for part in (script, style):
        assert "sha256-" + base64.b64encode(hashlib.sha256(part.group(1).encode()).digest()).decode() in text
    assert "innerHTML" not in script.group(1), "names are set as text only"
