"""MCP across the mesh: attaching the servers of this stack's CIs, and one server for all of them.

Nothing here imports the SDK before it is needed: it costs most of a second and forty megabytes, and
a daemon without MCP never pays for it (docs/design/mcp.md).
"""
