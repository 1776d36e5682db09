"""`tektonmesh demo`: a mesh of real daemons on this machine, shown at work and measured."""
