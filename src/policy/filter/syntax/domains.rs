//! One name per line. `*.name` and `.name` mean the name and all below it: lists that are written so name each domain once.

use super::name::Folded;
use super::{Finding, Reader, Sink, before_comment};
use crate::policy::filter::rule::{Reach, Verb};

/// Reads one line.
pub(super) fn line<S: Sink>(line: &[u8], reader: &mut Reader<'_, S>) -> Result<(), Finding> {
    if matches!(line, [b'!' | b';', ..]) {
        return Ok(());
    }
    let line = before_comment(line);
    if line.is_empty() {
        return Ok(());
    }
    let below = line.strip_prefix(b"*.").or_else(|| line.strip_prefix(b"."));
    let (text, reach) = below.map_or((line, Reach::Exact), |text| (text, Reach::AtAndBelow));
    if text.contains(&b'*') {
        return Err(Finding::Pattern);
    }
    reader.emit_plain(Folded::read(text)?.name()?, reach, Verb::Block)
}
