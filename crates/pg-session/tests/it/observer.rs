//! A client beside the nodes that receives what they receive, and the errors that the server gives to any client.

use std::future::poll_fn;
use std::str::FromStr;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_postgres::{AsyncMessage, Client, Error, NoTls};

use crate::fixtures::in_time;
use crate::support::World;

/// A client that receives the notifications of the world's nodes.
pub struct Observer {
    pub client: Client,
    payloads: UnboundedReceiver<String>,
}

impl Observer {
    pub async fn new(world: &World) -> Self {
        let config = tokio_postgres::Config::from_str(&world.url).unwrap();
        let (client, mut connection) = config.connect(NoTls).await.unwrap();
        let (sender, payloads) = unbounded_channel();
        tokio::spawn(async move {
            let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
            while let Some(Ok(message)) = messages.next().await {
                if let AsyncMessage::Notification(notification) = message {
                    let _ = sender.send(notification.payload().to_owned());
                }
            }
        });
        let channel = "'pg_session_' || left(encode(sha256($1::text::bytea || '\\x00'::bytea), 'hex'), 16)";
        let row = client.query_one(&format!("SELECT {channel}"), &[&world.schema]).await.unwrap();
        client.batch_execute(&format!("LISTEN {}", row.get::<_, String>(0))).await.unwrap();
        Self { client, payloads }
    }

    /// What was notified since the last call, by transactions that were committed before this one. Without the ticks
    /// of the nodes, and without the causes.
    pub async fn notified(&mut self) -> Vec<String> {
        let mut payloads = self.notified_with_causes().await;
        payloads.retain(|payload| !payload.starts_with("1c"));
        payloads
    }

    pub async fn notified_with_causes(&mut self) -> Vec<String> {
        let mark = "SELECT pg_notify(pg_listening_channels(), 'the end')";
        self.client.batch_execute(mark).await.unwrap();
        let mut payloads = Vec::new();
        loop {
            let payload = in_time("the notification arrives", poll_fn(|c| self.payloads.poll_recv(c))).await;
            match payload.expect("the connection lives").as_str() {
                "the end" => return payloads,
                tick if tick.starts_with("1t") => {}
                payload => payloads.push(payload.to_owned()),
            }
        }
    }
}

/// What the client receives: the code and the hint.
pub fn rejection(error: &Error) -> (String, String) {
    let error = error.as_db_error().expect("an error of the server");
    (error.code().code().to_owned(), error.hint().unwrap_or_default().to_owned())
}
