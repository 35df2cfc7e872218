-- From here to the commit everybody waits who reads or writes history, and nobody is half-way through. Not for long: whoever
-- cannot be waited out in a moment is let go first, and it is tried again later.
set local lock_timeout = '100ms';
set local statement_timeout = '300ms';
lock table only history in access exclusive mode
