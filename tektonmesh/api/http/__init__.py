"""HTTP on the Unix socket and on loopback TCP. Imported when the first HTTP connection comes."""
