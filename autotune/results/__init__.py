"""The results of a sweep: its folder, its tables and their typed rows. Dashboards, report and export read them."""
