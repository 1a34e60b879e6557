"""The plot of speed against accuracy as a picture, drawn by a browser without a window."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from plotly.offline import get_plotlyjs

from compress_rec import plots
from compress_rec.errors import CompressRecError
from compress_rec.files import new_file
from compress_rec.report import Report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH, HEIGHT = 1100, 560
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--virtual-time-budget=5000"),
)


def pareto(report: Report, path: Path) -> None:
    """Write the plot as a PNG of 1100 × 560 pixels; refuse where it was not measured or no browser is there."""
    plot = plots.pareto(report)
    if plot is None:
        raise CompressRecError("the report has no latency and accuracy of two variants, so that nothing can be drawn: measure both")
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise CompressRecError(f"a picture needs a browser, but none of {', '.join(BROWSERS)} is on PATH: install one (Debian: chromium)")
    drawn = json.dumps({"data": plot["data"], "layout": {**plot["layout"], "width": WIDTH, "height": HEIGHT}}).replace("</", "<\\/")
    body = (
        '<!doctype html><meta charset="utf-8"><style>body{margin:0;background:#fff}</style><div id="plot"></div>'
        f"<script>{get_plotlyjs()}</script><script>const plot = {drawn};"
        "Plotly.newPlot('plot', plot.data, plot.layout, {staticPlot: true});</script>"
    )
    with tempfile.TemporaryDirectory() as aside, new_file(path) as goal:
        page, shot = Path(aside) / "plot.html", Path(aside) / "plot.png"
        page.write_text(body, encoding="utf-8")
        command = [
            browser,
            *FLAGS,
            f"--user-data-dir={aside}/profile",
            f"--window-size={WIDTH},{HEIGHT}",
            f"--screenshot={shot}",
            page.as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode or not shot.exists():
            raise CompressRecError(f"{browser} could not draw the plot ({done.stderr.strip()[-200:]}): open the report's page instead")
        goal.write_bytes(shot.read_bytes())
