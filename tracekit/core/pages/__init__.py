"""What every page is made of: colours, the stylesheet and the writer of reports."""
