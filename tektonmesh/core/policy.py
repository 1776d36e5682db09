"""Who may see, say and call: one pure function for every door and every verb.

A decision is the owner's export policy (what it shares, and with whom) and a right (a grant, the
terms agreed with that stack, or the default among one's own stacks) and the caller's import policy.
`decide` answers for the owner, `decide_use` for the caller; both say rule by rule why. Where the
facts come from, and what is charged for an act that went through, is `core/rights`'.

What one may not discover answers exactly as what does not exist: `not_found`. `refused` is only for
an act on something one may discover.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from tektonmesh.core.frozen import frozen
from tektonmesh.core.types import StackId
from tektonmesh.errors import LocalError

MODES = ("full", "partial", "read-only")
ROLES = ("member", "observer", "relay")
PUBLIC, PARTNERS, PRIVATE = "public", "partners", "private"
PLAIN_VERBS = ("discover", "message", "relay", "introduce")
NAMED_VERBS = ("tool.call", "resource.read", "prompt.get")
"""Verbs with an object behind a colon; in a grant that is a glob."""
READ_VERBS = ("discover", "resource.read", "prompt.get")
OWN_VERBS = ("discover", "message", "tool.call", "resource.read", "prompt.get", "relay")
"""What one's own stacks hold towards one another; introducing is never a default."""
VERB_SIZE_MAX = 512


@frozen
class Act:
    """What somebody wants to do. `verb` is "discover", "message", "relay", "introduce",
    "tool.call:NAME", "resource.read:URI" or "prompt.get:NAME"; `ci` the key of the CI it concerns;
    `caller_ci` the CI that asks, as its stack says; `effects` whether a tool may change something;
    `depth` the calls that led to this one; `tool_hash` the digest of the tool as it is now; `ref`
    the id of the message or call, by which the audit logs of both ends can be compared. `listing`
    asks whether there is any way of doing it: how it is done, by whom and how often is left out."""

    verb: str
    ci: str = ""
    caller_ci: str = ""
    size: int = 0
    tool_hash: str = ""
    effects: bool = True
    depth: int = 0
    ref: str = ""
    listing: bool = False

    @property
    def kind(self) -> str:
        return self.verb.partition(":")[0]


@frozen
class Grant:
    """A right of one stack. `verb` and `ci` may be globs behind the kind of the verb; the rest are
    caveats, each without effect at its default. `not_after_ms` is an instant of mesh time."""

    id: str
    verb: str
    ci: str = "*"
    not_after_ms: int = 0
    per_minute: int = 0
    size_max: int = 0
    caller_ci: str = ""
    tool_hash: str = ""
    depth_max: int = -1


@frozen
class Terms:
    """What is agreed with one other stack. `mode` is one of `MODES` or empty (nothing beyond the
    default), `shared_cis` the globs it is narrowed to, `role` what the stack may be at all, and
    `imports` the globs of its CIs that callers here may use."""

    mode: str = ""
    shared_cis: tuple[str, ...] = ()
    role: str = ""
    imports: tuple[str, ...] = ("*",)


@frozen
class Subject:
    """The stack that wants something. `role` is empty for one that is no member here; `own` says
    that it proved the secret of a mesh of one's own stacks; `spent` names the grants whose rate is
    used up."""

    stack_id: StackId
    role: str
    own: bool = False
    terms: Terms = Terms()
    grants: tuple[Grant, ...] = ()
    spent: tuple[str, ...] = ()


@frozen
class Rule:
    """One rule that was looked at. `passed` None says that it gave no right but forbade nothing."""

    name: str
    passed: bool | None
    why: str


@frozen
class Verdict:
    """What came of it. `code` is empty, or one of the table of errors; `grant` is the id of the
    grant that allowed it, to be charged when the act goes through."""

    allowed: bool
    code: str
    rules: tuple[Rule, ...]
    grant: str = ""

    @property
    def deciding(self) -> Rule:
        """The rule that settled it: the last one."""
        return self.rules[-1]


def check_verb(verb: str) -> str:
    """`verb` if an act or a grant may have it. Raises LocalError."""
    kind, colon, rest = verb.partition(":")
    named = kind in NAMED_VERBS and bool(rest)
    plain = kind in PLAIN_VERBS and not colon
    if not (named or plain) or len(verb) > VERB_SIZE_MAX or not verb.isprintable():
        known = [*PLAIN_VERBS, *(f"{name}:GLOB" for name in NAMED_VERBS)]
        raise LocalError(
            f"'{verb[:80]}' is no verb of the policy.", hint=f"Write {', '.join(known)}."
        )
    return verb


# --- the owner's side ----------------------------------------------------------------------------


def decide(act: Act, subject: Subject, share: str | None, now_ms: int) -> Verdict:
    """Whether `subject` may do this here. `share` is how the CI is shared, None if there is no such
    CI; it does not count for `relay` and `introduce`."""
    said: list[Rule] = []
    code = _forbidden(act, subject, share, said) or ""
    if code:
        assert not said[-1].passed, "whatever forbids has said so last"
        return Verdict(False, code, tuple(said))
    return _right(act, subject, now_ms, said)


def _forbidden(act: Act, subject: Subject, share: str | None, said: list[Rule]) -> str:
    """The code of the first rule that forbids the act whatever rights there are; or nothing."""
    if not subject.role:
        return _deny(said, "member", "This stack is not admitted here.", "not_found")
    said.append(Rule("member", True, f"It is admitted as {subject.role}."))
    if act.kind in ("relay", "introduce"):
        return ""
    if subject.role == "relay":
        why = "A relay forwards, and sees nothing of CIs."
        return _deny(said, "role", why, "not_found")
    if share is None:
        return _deny(said, "exists", "There is no such CI here.", "not_found")
    said.append(Rule("exists", True, "The CI is registered here."))
    if not _sees(act, subject, share, said):
        return "not_found"
    reads = act.kind in READ_VERBS or (act.kind == "tool.call" and not act.effects)
    if subject.role == "observer" and not reads:
        return _deny(said, "role", "An observer reads; this act does more.", "refused")
    return ""


def _deny(said: list[Rule], name: str, why: str, code: str) -> str:
    said.append(Rule(name, False, why))
    return code


def _sees(act: Act, subject: Subject, share: str, said: list[Rule]) -> bool:
    """The export policy: whether the subject may know of the CI at all."""
    named = _is_named(act, subject)
    if share == PUBLIC:
        said.append(Rule("share", True, "The CI is public: every member may see it."))
    elif share == PARTNERS and named:
        said.append(Rule("share", True, f"The CI is for partners, and {named}."))
    elif share == PARTNERS:
        said.append(Rule("share", False, "The CI is for partners, and this stack is none for it."))
    else:
        said.append(Rule("share", False, "The CI is private: nobody outside learns of it."))
    return bool(said[-1].passed)


def _is_named(act: Act, subject: Subject) -> str:
    """Why the subject is a partner for this CI; empty if it is none."""
    terms = subject.terms
    if terms.mode == "partial" or (terms.mode and terms.shared_cis):
        if _fits_any(act.ci, terms.shared_cis):
            return "the terms with this stack name it"
    elif terms.mode:
        return f"the terms with this stack are '{terms.mode}'"
    if any(_kind(g.verb) not in ("relay", "introduce") and _fits(act.ci, g.ci)
           for g in subject.grants):  # fmt: skip
        return "a grant names it"
    return ""


def _right(act: Act, subject: Subject, now_ms: int, said: list[Rule]) -> Verdict:
    """The first right that allows the act."""
    if act.kind == "discover":
        said.append(Rule("default", True, "What is shared with a stack, it may discover."))
        return Verdict(True, "", tuple(said))
    if _by_terms(act, subject, said):
        return Verdict(True, "", tuple(said))
    code = "refused"
    for grant in subject.grants:
        flaw = _flaw(act, grant, now_ms)
        if flaw is None and grant.id in subject.spent and not act.listing:
            said.append(Rule(f"grant {grant.id}", None, "Its rate is used up for now."))
            code = "busy"
        elif flaw is None:
            said.append(Rule(f"grant {grant.id}", True, f"It allows {grant.verb} on {grant.ci}."))
            return Verdict(True, "", tuple(said), grant.id)
        elif flaw:
            said.append(Rule(f"grant {grant.id}", None, flaw))
    why = "The grant's rate is used up." if code == "busy" else "No right allows this act."
    said.append(Rule("grant", False, why))
    return Verdict(False, code, tuple(said))


def _by_terms(act: Act, subject: Subject, said: list[Rule]) -> bool:
    """The terms with this stack; or, where there are none, the default among one's own."""
    terms = subject.terms
    if not terms.mode:
        if subject.own and act.kind in OWN_VERBS:
            said.append(Rule("default", True, "One's own stacks hold this right by default."))
            return True
        said.append(Rule("default", None, "It is no right of other organisations by default."))
        return False
    name = f"mode {terms.mode}"
    allowed = _mode_allows(act, terms, name, said)
    if allowed:
        said.append(Rule(name, True, "The terms with this stack allow it."))
    return allowed


def _mode_allows(act: Act, terms: Terms, name: str, said: list[Rule]) -> bool:
    if act.kind in ("relay", "introduce"):
        said.append(Rule(name, None, "Terms are about CIs; this takes a grant."))
        return False
    if (terms.mode == "partial" or terms.shared_cis) and not _fits_any(act.ci, terms.shared_cis):
        said.append(Rule(name, None, "The terms name other CIs only."))
        return False
    harmless = act.kind in READ_VERBS or (act.kind == "tool.call" and not act.effects)
    if terms.mode == "read-only" and not harmless:
        said.append(Rule(name, None, "The terms allow reading only."))
        return False
    return True


def _flaw(act: Act, grant: Grant, now_ms: int) -> str | None:
    """Why this grant does not allow the act: None if it does, empty if it is about another."""
    if not _fits(act.verb, grant.verb) or act.kind != _kind(grant.verb):
        return ""
    if act.ci and not _fits(act.ci, grant.ci):
        return ""
    if grant.not_after_ms and now_ms >= grant.not_after_ms:
        return "It has expired."
    if grant.tool_hash and act.tool_hash != grant.tool_hash:
        return "The tool is not the one that was granted: its description changed."
    return None if act.listing else _flaw_of_way(act, grant)


def _flaw_of_way(act: Act, grant: Grant) -> str | None:
    """The caveats that are about how an act is done, not about what is done."""
    if grant.size_max and act.size > grant.size_max:
        return f"It allows {grant.size_max} bytes; these are {act.size}."
    if grant.caller_ci and not _fits(act.caller_ci.lower(), grant.caller_ci):
        return f"It is for the caller {grant.caller_ci} only."
    if grant.depth_max >= 0 and act.depth > grant.depth_max:
        return f"It allows chains of {grant.depth_max} calls; this is call {act.depth}."
    return None


def holds_all(subject: Subject) -> bool:
    """Whether a stack may do everything with every public CI, by default or by its terms."""
    mode = subject.terms.mode
    full = mode == "full" and not subject.terms.shared_cis
    return subject.role == "member" and (full or (subject.own and not mode))


# --- the caller's side ---------------------------------------------------------------------------


def decide_use(act: Act, terms: Terms, *, admitted: bool = True) -> Verdict:
    """Whether callers here may use this at another stack (the import policy)."""
    if not admitted:
        why = "That stack was evicted here."
        return Verdict(False, "not_found", (Rule("import", False, why),))
    if not act.ci or _fits_any(act.ci, terms.imports):
        return _USABLE
    why = "The terms with that stack keep callers here from this CI."
    return Verdict(False, "refused", (Rule("import", False, why),))


_USABLE = Verdict(True, "", (Rule("import", True, "Callers here may use this CI of that stack."),))


# --- globs ---------------------------------------------------------------------------------------


def _kind(verb: str) -> str:
    return verb.partition(":")[0]


def _fits(text: str, glob: str) -> bool:
    return fnmatchcase(text, glob)


def _fits_any(text: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(text, glob) for glob in globs)
