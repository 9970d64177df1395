"""Charts of training: loss parts, angles, learning rate, and speed.

Each function takes the log and returns a picture, or None if the log lacks the figures for it.
"""

import numpy as np

from trainer.report.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    RED,
    SKY,
    Picture,
    legend,
    new_figure,
    plot,
    step_axis,
    to_source,
)
from trainer.report.metrics_log import PHASES, Column, MetricsLog
from trainer.report.thinning import thin, thin_stack

SFACE_CAPTION = (
    "The value of SFace is usually negative and is not the integral of its gradient (the sigmoids carry none), "
    "so models are not selected by it; the angles and the verification accuracy tell how training goes."
)


def span(column: Column, unit: str = "") -> str:
    """The first and the last finite value of a column in words."""
    finite = column[np.isfinite(column)]
    if not finite.size:
        return "no values"
    return f"from {finite[0]:.4g}{unit} to {finite[-1]:.4g}{unit}"


def loss_chart(log: MetricsLog, *, is_sface: bool) -> Picture | None:
    """Intra-class part, inter-class part and their sum."""
    figure, (axes,) = new_figure()
    parts = (
        ("loss_intra", "intra (positives)", BLUE, "--"),
        ("loss_inter", "inter (negatives)", RED, "-."),
        ("loss", "total", INK, "-"),
    )
    drawn = [plot(axes, thin(log["step"], log[name]), *rest) for name, *rest in parts]
    if not any(drawn):
        return None
    axes.set_ylabel("loss (mean over the global batch)")
    step_axis(axes)
    legend(axes)
    return Picture(
        title="Loss parts",
        source=to_source(figure),
        alt=f"Line chart of the loss over steps. Total {span(log['loss'])}, intra-class part "
        f"{span(log['loss_intra'])}, inter-class part {span(log['loss_inter'])}.",
        caption=SFACE_CAPTION if is_sface else "",
    )


def angle_chart(log: MetricsLog, *, a: float | None, b: float | None) -> Picture | None:
    """Angles to the own center and to the others, in degrees; a and b are the loss's own angles in radians."""
    figure, (axes,) = new_figure()
    step = log["step"]
    positive = np.degrees(log["theta_positive"])
    negative = np.degrees(log["theta_negative"])
    deviation = np.nan_to_num(np.degrees(log["theta_negative_std"]), nan=0.0)
    low, high = thin(step, negative - deviation), thin(step, negative + deviation)
    if low.x.size:
        axes.fill_between(low.x, low.mean, high.mean, color=RED, alpha=0.16, linewidth=0, label="negatives ± std")
    drawn = [
        plot(axes, thin(step, negative), "negatives, mean", RED, "--"),
        plot(axes, thin(step, positive), "positives, mean", BLUE),
    ]
    if not any(drawn):
        return None
    for angle, name, color in ((a, "a", BLUE), (b, "b", RED)):
        if angle is not None:
            degrees = float(np.degrees(angle))
            axes.axhline(degrees, color=color, linewidth=1, linestyle=":", label=f"{name} = {degrees:.1f}°")
    axes.set_ylabel("angle to class center (degrees)")
    step_axis(axes)
    legend(axes, ncols=3)
    return Picture(
        title="Angles of positives and negatives",
        source=to_source(figure),
        alt=f"Line chart of mean angles over steps. Positives {span(positive, '°')}, negatives {span(negative, '°')}.",
        caption="Positives are pulled below a, negatives pushed above b." if None not in (a, b) else "",
    )


def learning_rate_chart(log: MetricsLog) -> Picture | None:
    """The learning rate of each step."""
    figure, (axes,) = new_figure()
    if not plot(axes, thin(log["step"], log["learning_rate"]), "learning rate", BLUE):
        return None
    axes.set_ylim(bottom=0)
    axes.set_ylabel("learning rate")
    step_axis(axes)
    return Picture(
        title="Learning rate",
        source=to_source(figure),
        alt=f"Line chart of the learning rate over steps, {span(log['learning_rate'])}.",
    )


def speed_chart(log: MetricsLog) -> Picture | None:
    """Images per second, and where the time of a step goes."""
    figure, (speed, phases) = new_figure(4.4, panels=2)
    has_speed = plot(speed, thin(log["step"], log["images_per_second"]), "images/s", BLUE)
    x, layers = thin_stack(log["step"], [log[f"phase_{phase}"] * 1e3 for phase in PHASES])
    if x.size > 1:
        colors = (SKY, BLUE, RED, ORANGE, GREEN, GREY)
        phases.stackplot(x, layers, labels=PHASES, colors=colors, linewidth=0)
        legend(phases, ncols=6, columnspacing=1.1, handlelength=1.2)
    if not has_speed and not x.size:
        return None
    speed.set_ylim(bottom=0)
    speed.set_ylabel("images/s")
    phases.set_ylim(bottom=0)
    phases.set_ylabel("ms per step")
    step_axis(phases)
    medians = ", ".join(
        f"{phase} {value * 1e3:.3g} ms" for phase in PHASES if (value := log.median(f"phase_{phase}")) is not None
    )
    return Picture(
        title="Speed and time per phase",
        source=to_source(figure),
        alt=f"Two charts over steps: images per second {span(log['images_per_second'])}; stacked seconds of a "
        f"step by phase, medians: {medians or 'not logged'}.",
        caption=f"Medians per step: {medians}." if medians else "",
    )
