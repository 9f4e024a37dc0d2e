"""What dashboards, report and export open: the rows of a sweep and its folder."""
