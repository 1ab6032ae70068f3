"""What people look at: plots, figures, the HTML report."""
