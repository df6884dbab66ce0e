"""Data sets that come with libraries, or are computed: no files, no download."""
