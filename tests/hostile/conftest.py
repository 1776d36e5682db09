"""Daemons of these tests are forked from a process that has imported everything."""

from tests.e2e.stacks import Stack

Stack.quick = True
