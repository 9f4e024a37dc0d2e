"""A page over results.csv: `streamlit run results/dashboards/streamlit_app.py -- results/<sweep>`."""

import sys
from pathlib import Path

import pandas
import streamlit

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else "results/example")

streamlit.set_page_config(page_title=FOLDER.name, layout="wide")
streamlit.title(FOLDER.name)

rows = pandas.read_csv(FOLDER / "results.csv")
last = rows.groupby(["candidate", rows["trial"] == 0])["attempt"].transform("max")
rows = rows[rows["attempt"] == last]
done = rows[(rows["status"] == "ok") & (rows["trial"] > 0)]
scores = [name for name in ("accuracy", "exact_match", "f1", "perplexity") if done[name].notna().any()]
score = streamlit.sidebar.selectbox("score", scores)
cost = streamlit.sidebar.selectbox("against", ["itl_ms_p50", "size_mb", "ttft_ms_p50", "peak_memory_mb"])

kept = done
for name in ("size_mb", "itl_ms_p50"):
    low, high = float(done[name].min()), float(done[name].max())
    if low < high:
        most = streamlit.sidebar.slider(f"{name} at most", low, high, high)
        kept = kept[kept[name] <= most]

counted, fit, best = streamlit.columns(3)
counted.metric("candidates measured", len(done), f"{len(rows) - len(done)} others", delta_color="off")
fit.metric("within the limits", len(kept))
if len(kept):
    order = kept.sort_values(score, ascending=score == "perplexity")
    best.metric(f"best {score}", f"{order[score].iloc[0]:.3f}", order["candidate"].iloc[0][:8], delta_color="off")
    streamlit.scatter_chart(kept, x=cost, y=score, color="build_precision")
    shown = ["candidate", "trial", "lora_r", "lora_learning_rate", "build_precision", score, "itl_ms_p50", "size_mb"]
    streamlit.dataframe(order[shown], hide_index=True)
statuses = rows["status"].value_counts()
streamlit.bar_chart(statuses, horizontal=True, x_label="rows")
