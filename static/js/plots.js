// Draws every [data-plot] from the JSON it names, in the theme's colours.
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function draw(element) {
  const { edges, counts } = JSON.parse(document.getElementById(element.dataset.plot).textContent);
  const log = element.dataset.log === "1";
  const x = counts.map((_, i) => (log ? Math.sqrt(edges[i] * edges[i + 1]) : (edges[i] + edges[i + 1]) / 2));
  const width = log ? undefined : counts.map((_, i) => edges[i + 1] - edges[i]);
  const ticks = [];
  if (log) {
    const steps = Math.log10(edges.at(-1) / edges[0]) > 2 ? [1] : [1, 2, 5];
    for (let power = Math.floor(Math.log10(edges[0])); power <= Math.ceil(Math.log10(edges.at(-1))); power++)
      for (const step of steps) ticks.push(step * 10 ** power);
  }
  const axis = { gridcolor: colour("--line"), zeroline: false };
  const layout = {
    margin: { l: 45, r: 8, t: 8, b: 40 }, height: 220, bargap: 0.05, hoverdistance: 10, spikedistance: 20,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colour("--text"), size: 12 },
    xaxis: { ...axis, title: { text: element.dataset.x }, type: log ? "log" : "linear", ...(log ? { tickvals: ticks, ticktext: ticks.map(String) } : {}) },
    yaxis: { ...axis, title: { text: "count" } },
  };
  const trace = { type: "bar", x, y: counts, width, marker: { color: colour("--accent") } };
  Plotly.react(element, [trace], layout, { displayModeBar: false, responsive: true });
}

const all = () => document.querySelectorAll("[data-plot]").forEach(draw);
all();
document.addEventListener("themechange", all);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
