//! What comes of the admin API, in the order in which it comes; connects again when it breaks.

use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::time::sleep;

use super::client::{Client, Trouble};
use super::model::{Change, Figures, Past, Status};

/// Something to show.
#[derive(Debug)]
pub(super) enum News {
    /// The status, a second after the one before.
    Status(Box<Status>),
    /// The seconds before now, the oldest first.
    Past(Vec<Figures>),
    /// A change of a snapshot.
    Change(Change),
    /// There is no news, and why.
    Lost(String),
}

/// The status and the seconds before it.
pub(super) async fn once(client: &Client) -> Result<(Status, Vec<Figures>), Trouble> {
    let past: Past = client.get("/api/v1/history").await?;
    Ok((client.get("/api/v1/status").await?, past.points))
}

/// Tells everything until nobody listens.
pub(super) async fn follow(client: Client, news: Sender<News>) {
    let mut pause = PAUSE_FIRST;
    loop {
        let lost = match listen(&client, &news, &mut pause).await {
            Ok(()) => "the admin API closed the connection".to_owned(),
            Err(trouble) => trouble.to_string(),
        };
        if news.send(News::Lost(lost)).await.is_err() {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Tells what comes over one connection.
async fn listen(client: &Client, news: &Sender<News>, pause: &mut Duration) -> Result<(), Trouble> {
    let (status, points) = once(client).await?;
    let mut events = client.listen("/api/v1/events").await?;
    let mut next = vec![News::Past(points), News::Status(Box::new(status))];
    loop {
        for told in next.drain(..) {
            if news.send(told).await.is_err() {
                return Ok(());
            }
        }
        let Some((name, data)) = events.next().await? else { return Ok(()) };
        next.extend(read(&name, &data)?);
        *pause = PAUSE_FIRST;
    }
}

/// What an event says; events of other names are passed over.
fn read(name: &str, data: &str) -> Result<Option<News>, Trouble> {
    let unreadable = |error: serde_json::Error| Trouble::Unreadable(error.to_string());
    match name {
        "status" => {
            let status = serde_json::from_str(data).map_err(unreadable)?;
            Ok(Some(News::Status(Box::new(status))))
        }
        "change" => serde_json::from_str(data).map_err(unreadable).map(|it| Some(News::Change(it))),
        _ => Ok(None),
    }
}

/// How long it waits before it connects again, the first time and at most.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(8);
