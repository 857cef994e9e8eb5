// Pointer, wheel and keys on the map. Each gesture calls one of ``act``: move, zoom, hover, click, outline.
const SLACK = 4; // pixels a click may move
const WHEEL = 1 / 300;
const STEP = 80; // pixels an arrow key moves
const AWAY = [-1e6, -1e6];
const KEYS = { ArrowLeft: [STEP, 0], ArrowRight: [-STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP] };

export function listen(frame, act) {
  const down = new Map();
  let gesture = null;
  const at = (event) => {
    const box = frame.getBoundingClientRect();
    return [event.clientX - box.left - frame.clientLeft, event.clientY - box.top - frame.clientTop];
  };
  const spread = () => {
    const [a, b] = [...down.values()];
    return { wide: Math.hypot(a[0] - b[0], a[1] - b[1]), x: (a[0] + b[0]) / 2, y: (a[1] + b[1]) / 2 };
  };

  frame.addEventListener("pointerdown", (event) => {
    if (event.button || event.target.closest("button")) return;
    down.set(event.pointerId, at(event));
    const outline = down.size === 1 && (event.shiftKey || act.lassoing()) ? [at(event)] : null;
    gesture = { start: at(event), moved: down.size > 1, outline };
    if (event.shiftKey) event.preventDefault(); // selects no text
  });
  frame.addEventListener("pointermove", (event) => {
    const [x, y] = at(event);
    if (!down.has(event.pointerId)) {
      const named = event.target.closest("a:not(.map-hover)");
      if (event.pointerType === "mouse") act.hover(...(named ? AWAY : [x, y]));
      return;
    }
    const before = down.size === 2 ? spread() : null;
    const [lastX, lastY] = down.get(event.pointerId);
    if (!gesture.moved && Math.hypot(x - gesture.start[0], y - gesture.start[1]) < SLACK) return;
    gesture.moved = true;
    for (const id of down.keys()) if (!frame.hasPointerCapture(id)) frame.setPointerCapture(id);
    down.set(event.pointerId, [x, y]);
    if (before) {
      const now = spread();
      act.move(now.x - before.x, now.y - before.y);
      act.zoom(Math.log2(now.wide / Math.max(before.wide, 1)), now.x, now.y);
    } else if (gesture.outline) {
      gesture.outline.push([x, y]);
      act.outlining(gesture.outline);
    } else act.move(x - lastX, y - lastY);
  });
  const up = (event) => {
    if (!down.delete(event.pointerId) || down.size) return;
    if (gesture.outline && gesture.moved && event.type === "pointerup") act.outline(gesture.outline);
    else if (gesture.outline) act.outline([]);
  };
  frame.addEventListener("pointerup", up);
  frame.addEventListener("pointercancel", up);
  frame.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && !down.size && act.hover(...AWAY));
  frame.addEventListener("dragstart", (event) => event.preventDefault());
  frame.addEventListener("click", (event) => {
    const dragged = event.detail && gesture?.moved;
    const link = event.target.closest("a");
    if (dragged || (link && !(event.ctrlKey || event.metaKey || event.shiftKey))) event.preventDefault();
    if (dragged || event.ctrlKey || event.metaKey || event.shiftKey) return;
    act.click(...at(event), link, event.pointerType);
  });
  frame.addEventListener("dblclick", (event) => event.target.closest("a") || act.zoom(1, ...at(event)));
  frame.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 24 : 1;
      act.zoom(-Math.max(-300, Math.min(300, event.deltaY * lines * (event.ctrlKey ? 4 : 1))) * WHEEL, ...at(event));
    },
    { passive: false },
  );
  frame.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (KEYS[event.key]) act.move(...KEYS[event.key].map((one) => one * (event.shiftKey ? 3 : 1)));
    else if (event.key === "+" || event.key === "=") act.zoom(0.5);
    else if (event.key === "-" || event.key === "_") act.zoom(-0.5);
    else if (event.key === "0" || event.key === "Home") act.home();
    else return;
    event.preventDefault();
  });
}
