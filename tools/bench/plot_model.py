"""Draws the figures of `make bench-model` as SVG: plot_model.py model.json out.svg. No library is needed, and the same figures give the same bytes."""
import html
import json
import sys

ROWS = [
    ("AES-256-GCM alone, in the cache", "limit", "limit"),
    ("AES-256-GCM alone, from memory", "limit_memory", "limit"),
    ("sealed → locked, pages ahead", "sealed", "cella"),
    ("sealed → locked, fresh pages", "sealed_fresh", "cella"),
    ("sealed → locked, with BLAKE3", "digest", "cella"),
    ("plain copy, fresh pages", "copy_fresh", "limit"),
    ("registry → locked, by the agent", "pull", "cella"),
    ("registry, four curls, nothing opened", "curl", "limit"),
    ("age -d", "age", "peer"),
    ("gpg -d", "gpg", "peer"),
    ("qemu-img from LUKS", "luks", "peer"),
    ("Tink in Python", "tink_py", "peer"),
    ("skopeo, ocicrypt layer", "skopeo", "peer"),
]
COLOURS = {"limit": "#9aa5b1", "cella": "#1f6f5c", "peer": "#b4632a"}
LEFT, WIDTH, STEP, TOP = 270, 560, 26, 46


def main() -> None:
    source, target = sys.argv[1:]
    report = json.load(open(source, encoding="utf-8"))
    measured = report["measured"]
    rows = [row for row in ROWS if row[1] in measured]
    top = max(measured[key]["median"] for _, key, _ in rows)
    height = TOP + STEP * len(rows) + 40
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 90}" height="{height}" font-family="sans-serif" font-size="13">',
        f'<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="12" y="24" font-size="15">{report["mib"]} MiB of model, GB/s; medians of {report["n"]}, whiskers from least to most</text>',
    ]
    for index, (text, key, kind) in enumerate(rows):
        figure, y = measured[key], TOP + STEP * index
        scale = lambda value: LEFT + WIDTH * value / top
        end = scale(figure["median"])
        middle = y + 9
        out += [
            f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{html.escape(text)}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{end - LEFT:.1f}" height="18" fill="{COLOURS[kind]}"/>',
            f'<path d="M{scale(figure["min"]):.1f} {middle}H{scale(figure["max"]):.1f}" stroke="#222222"/>',
            f'<text x="{max(end, scale(figure["max"])) + 6:.1f}" y="{y + 14}">{figure["median"]:.2f}</text>',
        ]
    out += [
        f'<text x="12" y="{height - 12}" font-size="11" fill="#555555">{html.escape(report["machine"])}; commit {report["commit"]}</text>',
        "</svg>",
    ]
    open(target, "w", encoding="utf-8").write("\n".join(out) + "\n")


main()
