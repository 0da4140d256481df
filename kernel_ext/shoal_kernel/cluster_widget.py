"""The cluster card that stays up to date, scales the cluster and ends it: controls of ipywidgets around our own HTML.

A card has one thread, which looks at the cluster and writes the card's text. Callbacks come on whatever thread the
front end's messages are handled on (subshells have their own), so they only start threads and set values.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import threading
import time
import weakref
from collections.abc import Callable
from html import escape
from typing import Any

import shoal
from shoal.api.session import call_at_end
from shoal.errors import ShoalError
from shoal_kernel.cluster_table import render_table

logger = logging.getLogger("shoal")

#: Seconds between two looks while there is work, and while there is none.
BUSY_INTERVAL, IDLE_INTERVAL = 1.0, 3.0
#: Seconds between two looks while the front end shows no view of the card, as far as it says so.
UNSEEN_INTERVAL = 10.0
#: Seconds without work, cells and clicks after which a card rests until there is one of these.
PATIENCE = 300.0
#: Seconds that a look may take.
LOOK_TIMEOUT = 3.0
#: Seconds that the first may take, which is made while the card is being shown.
FIRST_LOOK_TIMEOUT = 0.2
#: Seconds that scaling may take.
SCALE_TIMEOUT = 60.0

_cards: weakref.WeakValueDictionary[str, ClusterCard] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def live_view(cluster: Any) -> dict[str, Any]:
    """Return the MIME bundle of a live card; empty for what has none, and where there is no ipywidgets."""
    if not isinstance(cluster, shoal.Cluster) or cluster.kind == "inline":
        return {}
    if importlib.util.find_spec("ipywidgets") is None or not cluster.is_current:
        return {}
    with _lock:
        card = _cards.get(cluster.id)
        if card is None or card.ended:
            card = _cards[cluster.id] = ClusterCard(cluster)
            card.start()
    bundle: dict[str, Any] = card.box._repr_mimebundle_() or {}
    return {kind: part for kind, part in bundle.items() if kind != "text/plain"}


def end_cards() -> None:
    """End the threads of all cards; what they show last stays."""
    with _lock:
        cards = list(_cards.values())
        _cards.clear()
    for card in cards:
        card.end("This card is not kept up to date any more.")


class ClusterCard:
    """See the module's description. All views of one cluster in this kernel share one."""

    def __init__(self, cluster: shoal.Cluster) -> None:
        import ipywidgets as widgets

        self._cluster = cluster
        self._wake = threading.Event()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._active_at = time.monotonic()
        self._events: Any = None
        self._table = widgets.HTML()
        self._line = widgets.HTML()
        self._nodes = widgets.BoundedIntText(
            value=1, min=1, max=999, description="Nodes", layout=widgets.Layout(width="170px")
        )
        self._scale = _button(widgets, "Scale", "Have this many nodes", self._on_scale)
        self._stop = _button(widgets, "Stop…", "End the cluster; asks first", self._on_stop)
        self._sure = _button(widgets, self._verb, "This cannot be undone", self._on_sure)
        self._sure.button_style = "danger"
        self._keep = _button(widgets, "Keep it", "Do not end the cluster", self._on_keep)
        self._question = widgets.HBox([widgets.Label(f"{self._verb}?"), self._sure, self._keep])
        self._question.layout.display = "none"
        controls = widgets.HBox([self._nodes, self._scale, self._stop])
        self.box = widgets.VBox([self._table, controls, self._question, self._line])
        self.box.add_class("shoal-cluster-card")
        #: The front end keeps count of its views from here on.
        self.box._view_count = 0
        self.box.observe(self._on_views, "_view_count")
        self._was_seen = False
        self._controls = (self._nodes, self._scale, self._stop, self._sure, self._keep)

    @property
    def ended(self) -> bool:
        return self._over.is_set()

    @property
    def _verb(self) -> str:
        return "End the cluster and all its work" if self._cluster.kind == "embedded" else "Leave the cluster"

    def start(self) -> None:
        """Show what there is, and keep it up to date until :meth:`end`."""
        from IPython import get_ipython

        with contextlib.suppress(ShoalError, TimeoutError, OSError):
            snapshot = self._cluster.snapshot(timeout=FIRST_LOOK_TIMEOUT)
            self._nodes.value = max(1, len(snapshot["nodes"]))
            self._table.value = render_table(snapshot, self._cluster.kind)
        call_at_end(self._on_session_end)
        shell: Any = get_ipython()
        self._events = shell.events
        self._events.register("pre_run_cell", self._on_cell)
        self._thread = threading.Thread(target=self._run, name="shoal-card", daemon=True)
        self._thread.start()

    def end(self, said: str) -> None:
        """Stop looking; returns when the thread has ended."""
        if self._over.is_set():
            return
        self._over.set()
        self._wake.set()
        if self._events is not None:
            self._events.unregister("pre_run_cell", self._on_cell)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(2 * LOOK_TIMEOUT)
        for control in self._controls:
            _set(control, disabled=True)
        _set(self._question.layout, display="none")
        self._say(said)

    # -- the card's own thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._over.is_set() and self.box.comm is not None:
            interval = self._look()
            rests = interval != BUSY_INTERVAL and time.monotonic() - self._active_at > PATIENCE
            if rests:
                self._say("Nothing has happened for a while: these numbers wait for the next cell or click.")
            self._wake.wait(None if rests else interval)
            self._wake.clear()
            if rests:
                self._say("")

    def _look(self) -> float:
        """Show how the cluster is; returns in how many seconds to look again."""
        try:
            snapshot = self._cluster.snapshot(timeout=LOOK_TIMEOUT)
        except (ShoalError, TimeoutError, OSError) as error:
            self._show(render_table(None, self._cluster.kind, self._cluster.name, str(error)))
            return IDLE_INTERVAL
        self._show(render_table(snapshot, self._cluster.kind))
        if self.box._view_count == 0 and self._was_seen:
            return UNSEEN_INTERVAL
        tasks = snapshot["tasks"]
        return BUSY_INTERVAL if tasks["running"] or tasks["queued"] else IDLE_INTERVAL

    def _show(self, html: str) -> None:
        if not self._over.is_set():
            _set(self._table, value=html)

    # -- callbacks, on any thread --------------------------------------------------------------------------------

    def _on_cell(self, _: object = None) -> None:
        """A cell is about to run: there may be news soon."""
        self._active_at = time.monotonic()
        self._wake.set()

    def _on_views(self, change: Any) -> None:
        """A view has come or gone."""
        self._was_seen = True
        self._wake.set()

    def _on_scale(self, _: Any) -> None:
        self._on_cell()
        self._scale.disabled = True
        self._say(f"Scaling to {self._nodes.value} nodes …")
        _start_thread(self._do_scale)

    def _do_scale(self) -> None:
        wanted = self._nodes.value
        try:
            scaled = self._cluster.try_scale(wanted, timeout=SCALE_TIMEOUT)
            there = f"There {'is 1 node' if wanted == 1 else f'are {wanted} nodes'} now."
            self._say(there if scaled.num_nodes == wanted else scaled.note(wanted))
        except (ShoalError, TimeoutError, OSError) as error:
            self._say(f"Not scaled: {error}", failed=True)
        finally:
            self._scale.disabled = self.ended
            self._wake.set()

    def _on_stop(self, _: Any) -> None:
        self._question.layout.display = ""
        self._keep.focus()

    def _on_keep(self, _: Any) -> None:
        self._question.layout.display = "none"
        self._stop.focus()

    def _on_sure(self, _: Any) -> None:
        self._sure.disabled = True
        _start_thread(self._do_stop)

    def _do_stop(self) -> None:
        try:
            self._cluster.shutdown()
        except (ShoalError, TimeoutError, OSError) as error:
            self._say(f"It did not end in good order: {error}", failed=True)

    def _on_session_end(self) -> None:
        self._show(render_table(None, self._cluster.kind, self._cluster.name, "this notebook does not use it any more"))
        self.end("`shoal.init()` starts or joins a cluster again.")

    def _say(self, text: str, *, failed: bool = False) -> None:
        _set(self._line, value=render_line(text, failed=failed))


def _set(widget: Any, **values: Any) -> None:
    """Set traits of a widget, whose front end may be gone, and the kernel on its way out."""
    try:
        for name, value in values.items():
            setattr(widget, name, value)
    except Exception:  # boundary: nothing of the cluster depends on what a card shows
        logger.debug("a card could not be updated", exc_info=True)


def render_line(text: str, *, failed: bool = False) -> str:
    """Return a message as HTML that screen readers read out."""
    role, mark = ("alert", "Error: ") if failed else ("status", "")
    return f'<div role="{role}">{mark}{escape(text)}</div>'


def _button(widgets: Any, label: str, tooltip: str, on_click: Callable[[Any], None]) -> Any:
    button = widgets.Button(description=label, tooltip=tooltip, layout=widgets.Layout(width="auto"))
    button.on_click(on_click)
    return button


def _start_thread(target: Callable[[], None]) -> None:
    threading.Thread(target=target, name="shoal-card-action", daemon=True).start()
