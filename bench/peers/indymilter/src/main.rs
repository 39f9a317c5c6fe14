//! The filter of filters/every_step.py on indymilter. Usage: bench-filter PATH every|noreply

use std::{
    env,
    error::Error,
    ffi::CString,
    sync::atomic::{AtomicUsize, Ordering},
};

use indymilter::{Callbacks, Config, Context, EomContext, NegotiateContext, ProtoOpts, Status};
use tokio::{
    net::UnixListener,
    signal::unix::{signal, SignalKind},
};

/// Of connections that have ended.
static ALL_OCTETS: AtomicUsize = AtomicUsize::new(0);

const NO_REPLIES: ProtoOpts = ProtoOpts::NOREPLY_CONNECT
    .union(ProtoOpts::NOREPLY_HELO)
    .union(ProtoOpts::NOREPLY_MAIL)
    .union(ProtoOpts::NOREPLY_RCPT)
    .union(ProtoOpts::NOREPLY_DATA)
    .union(ProtoOpts::NOREPLY_HEADER)
    .union(ProtoOpts::NOREPLY_EOH)
    .union(ProtoOpts::NOREPLY_BODY)
    .union(ProtoOpts::NOREPLY_UNKNOWN);

/// What is kept for a connection.
#[derive(Default)]
struct Connection {
    octets: usize,
    recipients: usize,
    client: CString,
    helo: CString,
    sender: Vec<CString>,
    queue_id: Option<CString>,
}

type Ctx = Context<Connection>;

fn kept(context: &mut Ctx) -> &mut Connection {
    context.data.get_or_insert_with(Connection::default)
}

/// All steps, each with the same answer but the end of message.
fn callbacks(answer: Status, options: ProtoOpts) -> Callbacks<Connection> {
    Callbacks::new()
        .on_negotiate(move |context: &mut NegotiateContext<_>, _, _| {
            Box::pin(async move {
                context.requested_opts = options;
                Status::Continue
            })
        })
        .on_connect(move |context: &mut Ctx, host, _| {
            Box::pin(async move {
                kept(context).client = host;
                answer
            })
        })
        .on_helo(move |context: &mut Ctx, name| {
            Box::pin(async move {
                kept(context).helo = name;
                answer
            })
        })
        .on_mail(move |context: &mut Ctx, arguments| {
            Box::pin(async move {
                let connection = kept(context);
                connection.sender = arguments;
                connection.recipients = 0;
                answer
            })
        })
        .on_rcpt(move |context: &mut Ctx, _| {
            Box::pin(async move {
                kept(context).recipients += 1;
                answer
            })
        })
        .on_data(move |_| Box::pin(async move { answer }))
        .on_header(move |context: &mut Ctx, name, value| {
            Box::pin(async move {
                kept(context).octets += name.as_bytes().len() + value.as_bytes().len();
                answer
            })
        })
        .on_eoh(move |_| Box::pin(async move { answer }))
        .on_body(move |context: &mut Ctx, chunk| {
            Box::pin(async move {
                kept(context).octets += chunk.len();
                answer
            })
        })
        .on_unknown(move |_, _| Box::pin(async move { answer }))
        .on_eom(|context: &mut EomContext<Connection>| {
            Box::pin(async move {
                let queue_id = context.macros.get(c"i").map(Into::into);
                context
                    .data
                    .get_or_insert_with(Connection::default)
                    .queue_id = queue_id;
                Status::Continue
            })
        })
        .on_abort(|_| Box::pin(async { Status::Continue }))
        .on_close(|context: &mut Ctx| {
            Box::pin(async move {
                ALL_OCTETS.fetch_add(kept(context).octets, Ordering::Relaxed);
                context.data = None;
                Status::Continue
            })
        })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().collect();
    let (answer, options) = match arguments[2].as_str() {
        "noreply" => (Status::Noreply, NO_REPLIES),
        _ => (Status::Continue, ProtoOpts::empty()),
    };
    let listener = UnixListener::bind(&arguments[1])?;
    let config = Config {
        max_connections: 1000,
        ..Config::default()
    };
    let mut stop = signal(SignalKind::terminate())?;
    indymilter::run(listener, callbacks(answer, options), config, stop.recv()).await?;
    println!("{}", ALL_OCTETS.load(Ordering::Relaxed));
    Ok(())
}
