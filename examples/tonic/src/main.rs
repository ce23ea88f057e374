//! A live feed over gRPC. It ends with its session, on any node, with the reason.
//!
//! `DATABASE_URL=postgres://… SESSION_KEY=… cargo run -p pg-session-example-tonic`. The client sends the token of its session
//! as `authorization: Bearer …`. The application makes it at the login, with `Signer::issue`.

use std::{env, error::Error, pin::Pin, time::Duration};

use futures_util::{Stream, StreamExt as _, stream};
use pg_session::{Closed, Config, Migrations, SessionManager, Signer};
use tonic::transport::{Server, server::TcpIncoming};
use tonic::{Request, Response, Status};

tonic::include_proto!("news.News"); // made by build.rs

#[derive(Clone, PartialEq, prost::Message)]
struct Ask {}

#[derive(Clone, PartialEq, prost::Message)]
struct Item {
    #[prost(string, tag = "1")]
    text: String,
}

/// What the application has to say: here, the number of the message.
fn news() -> impl Stream<Item = Item> + Send {
    stream::unfold(0, |n| async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Some((Item { text: format!("news {n}") }, n + 1))
    })
}

struct Feed {
    sessions: SessionManager,
    signer: Signer,
}

#[tonic::async_trait]
impl news_server::News for Feed {
    type ListenStream = Pin<Box<dyn Stream<Item = Result<Item, Status>> + Send>>;

    async fn listen(&self, request: Request<Ask>) -> Result<Response<Self::ListenStream>, Status> {
        let login = || Status::unauthenticated("log in first");
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.strip_prefix("Bearer ")).ok_or_else(login)?;
        let token = self.signer.verify(token).map_err(|_| login())?;
        let session = self.sessions.get(token.id).min_version(token.version).or_latest().await;
        let session = session.map_err(failed)?.ok_or_else(login)?;
        let pin = self.sessions.pin(&session).await.map_err(failed)?;
        Ok(Response::new(Box::pin(pin.guard(news()).map(|item| item.map_err(closed)))))
    }
}

fn failed(error: pg_session::Error) -> Status {
    Status::unavailable(error.to_string())
}

/// UNAUTHENTICATED with the cause, or UNAVAILABLE.
fn closed(closed: Closed) -> Status {
    Status::new(closed.grpc_code().into(), closed.to_string())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut config = Config::default();
    config.migrations = Migrations::Apply;
    let sessions = SessionManager::connect(&env::var("DATABASE_URL")?, config).await?;
    let signer = Signer::from_base64(&env::var("SESSION_KEY")?)?;
    let address = env::var("ADDRESS").unwrap_or("[::1]:3000".into());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("http://{}", listener.local_addr()?);
    let service = news_server::NewsServer::new(Feed { sessions, signer });
    Ok(Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)).await?)
}
