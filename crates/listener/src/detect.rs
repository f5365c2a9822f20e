pub(crate) fn todo() {}
