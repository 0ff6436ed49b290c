"""From measurements to tables: medians over rounds, ratios, geometric means, and the figures that the project holds itself to."""

import math
import statistics

import workloads as lists

# Figures to reach: (group, at least as many times faster than TCG, at most as many times slower than native, worst against TCG)
BARS = {"integer": (4, 2, 1), "vector": (15, 2, 1), "system": (3, None, 1)}
BOOT_BARS = {"instruction": 0.4, "command": 0.3}
MEMORY_BAR = 64


def geometric_mean(values):
    values = list(values)
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def ratio(a, b):
    return a / b if a and b else None


def show(value):
    """A ratio."""
    return "" if value is None else f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}x"


def show_time(seconds):
    """Of one unit."""
    if seconds is None:
        return ""
    value, unit = (seconds * 1e6, "us") if seconds < 1e-3 else (seconds * 1e3, "ms") if seconds < 1 else (seconds, "s")
    return f"{value:.{max(0, 2 - int(math.log10(value)))}f} {unit}"


def markdown(header, rows):
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]

    def line(cells):
        return "| " + " | ".join(str(cell).ljust(width) for cell, width in zip(cells, widths)) + " |"

    return "\n".join([line(header), "| " + " | ".join("-" * width for width in widths) + " |", *map(line, rows)])


class Report:
    """data: what bench.py collected and writes as JSON."""

    def __init__(self, data, selected):
        self.data, self.selected = data, selected
        # The least disturbed run says more than the middle one where a host is busy with other things.
        self.middle = min if data.get("statistic") == "min" else statistics.median
        self.engines = data["engines"]
        self.ours = next((name for name in ("jit", "interp") if name in self.engines), None)
        # (a, b): a's time over b's. Without an engine of ours there is still TCG to look at.
        self.pairs = [("tcg", self.ours), (self.ours, "native")] if self.ours else [("tcg", "native")]

    def typical(self, engine, workload):
        values = [r["seconds"] / r["units"] for r in self.data["results"].get(workload, {}).get(engine, [])]
        return self.middle(values) if values else None

    def spread(self, engine, workload):
        values = [r["seconds"] / r["units"] for r in self.data["results"].get(workload, {}).get(engine, [])]
        return (max(values) - min(values)) / statistics.median(values) if len(values) > 1 else None

    def ratios(self, workload):
        """One for each of self.pairs; None where something was not measured."""
        return [ratio(self.typical(a, workload), self.typical(b, workload)) for a, b in self.pairs]

    def means(self, group):
        each = zip(*(self.ratios(w.name) for w in self.selected if w.group == group))
        return [geometric_mean(filter(None, values)) for values in each] or [None] * len(self.pairs)

    def workload_table(self, group):
        header = ["workload", *(self.engines[name]["title"] for name in self.engines), *(f"{a}/{b}" for a, b in self.pairs), "spread"]
        rows = []
        for workload in self.selected:
            if workload.group != group:
                continue
            spread = self.spread(self.ours or "tcg", workload.name)
            rows.append([workload.name, *(show_time(self.typical(name, workload.name)) for name in self.engines),
                         *map(show, self.ratios(workload.name)), f"{spread:.0%}" if spread is not None else ""])
        rows.append(["geometric mean", *("" for _ in self.engines), *map(show, self.means(group)), ""])
        return markdown(header, rows)

    def boot_seconds(self, engine, kernel, since):
        values = [b[since] for b in self.data["boot"].get(engine, {}).get(kernel, []) if b[since]]
        return self.middle(values) if values else None

    def boot_table(self):
        guests = [name for name in self.engines if name != "native"]
        rows = []
        for kernel, since, text in (("elf", "instruction", "from the kernel's first instruction (ELF)"),
                                    ("elf", "command", "from the command (ELF)"),
                                    ("bzimage", "command", "from the command (the distribution's vmlinuz)")):
            seconds = {name: self.boot_seconds(name, kernel, since) for name in guests}
            share = ratio(seconds.get(self.ours), seconds.get("tcg"))
            rows.append([text, *(f"{seconds[name]:.2f} s" if seconds[name] else "" for name in guests), f"{share:.2f}" if share else ""])
        return markdown(["boot to init", *(self.engines[name]["title"] for name in guests), f"{self.ours}/tcg" if self.ours else ""], rows)

    def memory_table(self):
        rows = []
        for name in self.engines:
            values = self.data["memory"].get(name, [])
            if values:
                rows.append([self.engines[name]["title"], *(f"{statistics.median(v[key] for v in values):.0f} MiB" for key in ("overhead", "ram"))])
        return markdown(["memory after the suite (PSS)", "beyond guest RAM", "touched guest RAM"], rows) if rows else ""

    def bars(self):
        """(what, figure, bar, reached) for each that could be measured."""
        found = []

        def add(what, value, bar, at_least):
            if value is not None:
                found.append((what, value, bar, value >= bar if at_least else value <= bar))

        for group, (faster_bar, slower_bar, worst_bar) in BARS.items():
            faster, slower = self.means(group)
            title = lists.GROUPS[group]
            add(f"{title}: times faster than TCG", faster, faster_bar, True)
            if slower_bar:
                add(f"{title}: times slower than native", slower, slower_bar, False)
            each = [(self.ratios(w.name)[0], w.name) for w in self.selected if w.group == group and self.ratios(w.name)[0]]
            if each:
                worst, name = min(each)
                add(f"{title}: worst against TCG ({name})", worst, worst_bar, True)
        for since, kernel in (("instruction", "elf"), ("command", "bzimage")):
            add(f"boot from the {'first instruction' if since == 'instruction' else since}: share of TCG's time",
                ratio(self.boot_seconds(self.ours, kernel, since), self.boot_seconds("tcg", kernel, since)), BOOT_BARS[since], False)
        values = self.data["memory"].get(self.ours)
        if values:
            add("memory beyond guest RAM, MiB", statistics.median(v["overhead"] for v in values), MEMORY_BAR, False)
        return found

    def bar_table(self):
        rows = [[what, f"{value:.2f}", bar, "yes" if good else "NO"] for what, value, bar, good in self.bars()]
        return markdown(["figure", f"{self.ours}", "bar", "reached"], rows)

    def text(self):
        data = self.data
        qemu = f"{data['versions']['tcg']}. " if "tcg" in self.engines else ""
        parts = [f"Host: {data['host']['cpu']}, {data['host']['cpus']} CPUs, {data['host']['kernel']}; other work kept "
                 f"{data['host']['other_load']:.1f} CPUs busy. {qemu}Guest: `-m 1G -cpu max`. "
                 f"{'Best' if data.get('statistic') == 'min' else 'Medians'} of {data['rounds']} round(s), time for one unit of work."]
        for group, title in lists.GROUPS.items():
            if any(w.group == group for w in self.selected):
                parts.append(f"**{title.capitalize()}**\n\n{self.workload_table(group)}")
        if data["boot"]:
            parts.append(self.boot_table())
        if data["memory"]:
            parts.append(self.memory_table())
        if self.ours == "jit":  # what the bars are about
            parts.append(self.bar_table())
        return "\n\n".join(parts) + "\n"


def compare(data, old, selected):
    """Our engine's times against an earlier run's (its JSON)."""
    now, before = Report(data, selected), Report(old, selected)
    rows = []
    for workload in selected:
        change = ratio(now.typical(now.ours, workload.name), before.typical(now.ours, workload.name))
        if change:
            times = [show_time(run.typical(now.ours, workload.name)) for run in (before, now)]
            rows.append([workload.name, *times, f"{change:.2f}"])
    mean = geometric_mean(float(row[3]) for row in rows)
    rows.append(["geometric mean", "", "", f"{mean:.2f}" if mean else ""])
    return markdown([f"{now.ours}", "before", "now", "now/before"], rows)
