//! The terminal while it is a screen: opened here, and put back whatever ends the process but
//! SIGKILL.

use std::io::{self, IsTerminal};

use ratatui::{DefaultTerminal, Frame};

/// The screen; dropping it puts the terminal back.
#[derive(Debug)]
pub(super) struct Screen(DefaultTerminal);

impl Screen {
    /// Takes the terminal over; a panic puts it back before its message is written.
    pub(super) fn open() -> io::Result<Screen> {
        if !io::stdout().is_terminal() {
            return Err(io::Error::other("standard output is no terminal"));
        }
        ratatui::try_init().map(Screen)
    }

    pub(super) fn draw(&mut self, render: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.0.draw(render).map(|_frame| ())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}
