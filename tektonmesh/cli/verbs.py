"""The table of verbs: what exists, in which order it is shown, and one line for each.

It is apart from the verbs themselves so that `tektonmesh help` imports none of them.
"""

from __future__ import annotations

GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Run a stack", ("init", "run", "leave", "status", "doctor", "peers")),
    ("Look around", ("stacks", "explain", "cis", "find", "trace", "watch")),
    ("Talk", ("send", "message", "tools", "resources", "prompts", "call", "mcp")),
    (
        "Decide who may do what",
        ("invite", "join", "grant", "revoke", "policy", "token", "keys", "audit"),
    ),
    ("Offer a CI", ("attach", "register", "deregister")),
    ("Try it", ("demo", "sim")),
)

VERBS: dict[str, str] = {
    "init": "Make the home, the identity and a commented settings file.",
    "run": "Run the daemon of this stack in the foreground.",
    "leave": "Finish what is under way, leave the mesh and stop the daemon.",
    "status": "What this stack is and how it is.",
    "doctor": "Check the set-up; each line says what to do.",
    "peers": "List, approve or evict other stacks.",
    "stacks": "The stacks of the mesh as this one knows them.",
    "explain": "Why a stack is in its state, with the evidence.",
    "cis": "The CIs of the mesh as this stack knows them.",
    "find": "Find CIs and stacks by words.",
    "trace": "The hops to a stack or CI.",
    "watch": "Show events as they happen.",
    "send": "Send a message to a CI and print its reply.",
    "message": "What became of a message that was sent from here.",
    "tools": "The tools of all CIs; approve one that has changed.",
    "resources": "The resources that CIs offer through MCP.",
    "prompts": "The prompts that CIs offer through MCP.",
    "call": "Call a tool of any CI.",
    "mcp": "An MCP server on stdio, for hosts: the tools of the whole mesh.",
    "invite": "Invite another stack, once and for a while.",
    "join": "Take an invite of another stack.",
    "grant": "Give another stack a right, or list the grants.",
    "revoke": "Take grants back.",
    "policy": "Show the policy, or explain a verdict.",
    "token": "Bearer tokens for programs that call over HTTP.",
    "keys": "Show or change the keys of this stack.",
    "audit": "Show or verify the audit log.",
    "attach": "Make a CI of any command.",
    "register": "Register a CI by hand.",
    "deregister": "Remove a CI of this stack.",
    "demo": "A mesh of real daemons on this machine, shown at work.",
    "sim": "Run simulated worlds of the daemon's own core.",
}

assert [name for _, names in GROUPS for name in names] == list(VERBS)
