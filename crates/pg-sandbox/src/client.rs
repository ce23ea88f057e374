//! One blocking connection to a server's Unix socket that runs simple queries: what pg-sandbox itself asks a server.
//!
//! It speaks only the few messages that a trusted local connection needs. A full driver would bring an asynchronous
//! runtime into blocking calls, and `psql` is not part of every installation.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use crate::error::{Error, ErrorKind};

/// How long the server may take to answer one query; a checkpoint of a base backup is the longest.
const ANSWER_WAIT: Duration = Duration::from_secs(120);
/// Longest message that is read, in bytes: far above the label of a backup.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Version 3.0 of the protocol.
const PROTOCOL: u32 = 3 << 16;

/// The rows of an answer: text, or `None` for NULL.
pub(crate) type Rows = Vec<Vec<Option<String>>>;

/// A connection; the server ends its session when this is dropped.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
}

impl Client {
    /// Connects as `postgres` to `database` through the socket for `port` in `directory`.
    ///
    /// # Errors
    /// [`ErrorKind::Query`] if the server refuses the connection or asks for a password.
    pub(crate) fn connect(directory: &Path, port: u16, database: &str) -> Result<Self, Error> {
        let path = directory.join(format!(".s.PGSQL.{port}"));
        let connect = || {
            let stream = UnixStream::connect(&path)?;
            stream.set_read_timeout(Some(ANSWER_WAIT))?;
            stream.set_write_timeout(Some(ANSWER_WAIT))?;
            Ok(stream)
        };
        let stream = connect().map_err(|error: io::Error| {
            Error::caused(ErrorKind::Query, format!("could not connect to {}", path.display()), error)
        })?;
        let mut client = Self { stream };
        let mut body = PROTOCOL.to_be_bytes().to_vec();
        for text in ["user", "postgres", "database", database, "application_name", "pg-sandbox", ""] {
            body.extend(text.as_bytes());
            body.push(0);
        }
        client.send(None, &body)?;
        client.answer("connect").map(|_| client)
    }

    /// Runs `sql` and returns the rows of its last statement.
    ///
    /// # Errors
    /// [`ErrorKind::Query`] with the server's message.
    pub(crate) fn query(&mut self, sql: &str) -> Result<Rows, Error> {
        let mut body = sql.as_bytes().to_vec();
        body.push(0);
        self.send(Some(b'Q'), &body)?;
        self.answer(sql)
    }

    /// The only value of an answer that has one row and one column.
    ///
    /// # Errors
    /// Those of [`query`](Self::query), and [`ErrorKind::Query`] for any other answer.
    pub(crate) fn value(&mut self, sql: &str) -> Result<String, Error> {
        let mut rows = self.query(sql)?;
        match rows.pop().and_then(|mut row| row.pop().flatten()) {
            Some(value) if rows.is_empty() => Ok(value),
            _ => Err(Error::new(ErrorKind::Query, format!("`{sql}` did not return one value"))),
        }
    }

    fn send(&mut self, kind: Option<u8>, body: &[u8]) -> Result<(), Error> {
        let length = u32::try_from(body.len() + 4)
            .map_err(|_| Error::new(ErrorKind::Query, "the query is too long for a message"))?;
        let mut message: Vec<u8> = kind.into_iter().collect();
        message.extend(length.to_be_bytes());
        message.extend(body);
        self.stream
            .write_all(&message)
            .map_err(|error| Error::caused(ErrorKind::Query, "could not send to the server", error))
    }

    /// Reads up to `ReadyForQuery`.
    fn answer(&mut self, sql: &str) -> Result<Rows, Error> {
        let mut rows = Rows::new();
        let mut refusal: Option<String> = None;
        loop {
            let (kind, body) = self.receive().map_err(|error| match &refusal {
                // The server says why and then closes the connection.
                Some(why) => refused(sql, why),
                None => Error::caused(ErrorKind::Query, format!("`{sql}`: the connection is lost"), error),
            })?;
            match kind {
                b'Z' => break,
                b'D' => rows.push(row(&body).ok_or_else(|| refused(sql, "the row is malformed"))?),
                b'R' if body != [0; 4] => return Err(refused(sql, "the server asks for a password")),
                b'E' => refusal = Some(message_of(&body)),
                // A statement may follow another; only the last one's rows count.
                b'T' => rows.clear(),
                _ => {}
            }
        }
        refusal.map_or(Ok(rows), |why| Err(refused(sql, &why)))
    }

    fn receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head)?;
        let [kind, length @ ..] = head;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if !(4..=MESSAGE_BYTES_MAX).contains(&length) {
            return Err(io::Error::other(format!("the server sent a message of {length} bytes")));
        }
        let mut body = vec![0; length - 4];
        self.stream.read_exact(&mut body)?;
        Ok((kind, body))
    }
}

fn refused(sql: &str, why: &str) -> Error {
    Error::new(ErrorKind::Query, format!("`{sql}` failed: {why}"))
}

/// `DataRow`: the number of columns, then for each its length (-1 for NULL) and its bytes.
fn row(body: &[u8]) -> Option<Vec<Option<String>>> {
    let (columns, mut rest) = body.split_first_chunk::<2>()?;
    let mut row = Vec::new();
    for _ in 0..u16::from_be_bytes(*columns) {
        let (length, after) = rest.split_first_chunk::<4>()?;
        rest = after;
        row.push(match usize::try_from(i32::from_be_bytes(*length)) {
            Ok(length) => {
                let (bytes, after) = rest.split_at_checked(length)?;
                rest = after;
                Some(String::from_utf8_lossy(bytes).into_owned())
            }
            Err(_) => None,
        });
    }
    Some(row)
}

/// `ErrorResponse`: fields of a letter and a text that ends with NUL. `M` is the message.
fn message_of(body: &[u8]) -> String {
    let mut fields = body.split(|byte| *byte == 0);
    let message = fields.find_map(|field| field.strip_prefix(b"M"));
    message.map_or_else(|| "no message".to_owned(), |text| String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_text_and_null() {
        let body = [&[0, 2][..], &[0, 0, 0, 2], b"ab", &[255; 4]].concat();
        assert_eq!(row(&body), Some(vec![Some("ab".to_owned()), None]));
        assert_eq!(row(&body[..5]), None, "a truncated row is no row");
    }

    #[test]
    fn error_message_is_found_among_the_fields() {
        assert_eq!(message_of(b"SFATAL\0C57P03\0Mstarting up\0\0"), "starting up");
    }
}
