//! In turn: each worker steps through the schedule, from a place of its own.

use super::{Candidates, Cursor, Schedule};

/// The place of the next candidate that is free.
pub fn pick(
    schedule: &Schedule,
    candidates: &Candidates,
    cursor: &mut Cursor,
    is_free: impl Fn(usize) -> bool,
) -> Option<usize> {
    // In a long order the busy ones can hold many turns in a row; candidates are few.
    let steps = schedule.len().min(2 * candidates.len());
    for _ in 0..steps {
        let turn = cursor.turn(schedule.len());
        cursor.turn = turn + 1;
        let place = schedule.at(turn)?;
        if is_free(place) {
            return Some(place);
        }
    }
    let start = schedule.at(cursor.turn(schedule.len()))?;
    candidates.first(start, is_free)
}
