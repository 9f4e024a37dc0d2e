"""What people look at and take away: progress, plan, status, select, doctor, bench."""
