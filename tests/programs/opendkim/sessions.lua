-- opendkim under miltertest: signs what comes from inside, verifies what comes from outside.
-- Writes down every reply, what was negotiated and every header that it adds; the test compares
-- this text on both libraries. Run with -D socket=WHERE.

local BODY = "The body.\r\n\r\nWith  spaces, and an end.\r\n"

local function told(what, step)
    mt.echo(string.format("%s: %s", step, what == 0 and "none" or string.char(what)))
end

local function check(error_text, step)
    if error_text ~= nil then
        error(step .. ": " .. error_text)
    end
end

local function open(name, address)
    local conn = mt.connect(socket)
    assert(conn ~= nil, "no connection")
    check(mt.negotiate(conn, nil, nil, nil), "negotiate")
    for _, bit in ipairs({
        "SMFIF_ADDHDRS", "SMFIF_CHGBODY", "SMFIF_ADDRCPT", "SMFIF_DELRCPT", "SMFIF_CHGHDRS",
        "SMFIF_QUARANTINE", "SMFIF_CHGFROM",
    }) do
        mt.echo(bit .. " " .. tostring(mt.test_action(conn, _G[bit])))
    end
    for _, bit in ipairs({
        "SMFIP_NOCONNECT", "SMFIP_NOHELO", "SMFIP_NOMAIL", "SMFIP_NORCPT", "SMFIP_NOBODY",
        "SMFIP_NOHDRS", "SMFIP_NOEOH", "SMFIP_NR_HDR", "SMFIP_NOUNKNOWN", "SMFIP_NODATA",
        "SMFIP_SKIP", "SMFIP_RCPT_REJ", "SMFIP_NR_CONN", "SMFIP_NR_HELO", "SMFIP_NR_MAIL",
        "SMFIP_NR_RCPT", "SMFIP_NR_DATA", "SMFIP_NR_UNKN", "SMFIP_NR_EOH", "SMFIP_NR_BODY",
        "SMFIP_HDR_LEADSPC",
    }) do
        mt.echo(bit .. " " .. tostring(mt.test_option(conn, _G[bit])))
    end
    mt.macro(conn, SMFIC_CONNECT, "j", "mx.local.test", "{daemon_name}", "mx", "v", "script")
    check(mt.conninfo(conn, name, address), "connect")
    told(mt.getreply(conn), "connect")
    if not mt.test_option(conn, SMFIP_NOHELO) then
        check(mt.helo(conn, name), "helo")
        told(mt.getreply(conn), "helo")
    end
    return conn
end

local function begin(conn, id, headers)
    mt.macro(conn, SMFIC_MAIL, "i", id, "{mail_addr}", "sender@example.test")
    check(mt.mailfrom(conn, "<sender@example.test>", "SIZE=99"), "mail")
    told(mt.getreply(conn), "mail")
    check(mt.rcptto(conn, "<one@local.test>"), "rcpt")
    told(mt.getreply(conn), "rcpt")
    check(mt.rcptto(conn, "<two@local.test>"), "rcpt")
    told(mt.getreply(conn), "rcpt")
    if not mt.test_option(conn, SMFIP_NODATA) then
        check(mt.data(conn), "data")
        told(mt.getreply(conn), "data")
    end
    for _, header in ipairs(headers) do
        check(mt.header(conn, header[1], header[2]), header[1])
        told(mt.getreply(conn), header[1])
    end
end

-- A whole message; returns the signature that it got, or nil.
local function message(conn, id, headers, chunks)
    mt.echo("message " .. id)
    begin(conn, id, headers)
    check(mt.eoh(conn), "eoh")
    told(mt.getreply(conn), "eoh")
    for _, chunk in ipairs(chunks) do
        check(mt.bodystring(conn, chunk), "body")
        told(mt.getreply(conn), "body")
    end
    check(mt.eom(conn), "eom")
    told(mt.getreply(conn), "eom")
    for _, name in ipairs({ "DKIM-Signature", "Authentication-Results", "DKIM-Filter" }) do
        local value = mt.getheader(conn, name, 0)
        mt.echo(name .. ": " .. tostring(value))
    end
    for _, what in ipairs({
        "MT_HDRADD", "MT_HDRINSERT", "MT_HDRCHANGE", "MT_HDRDELETE", "MT_BODYCHANGE",
        "MT_QUARANTINE",
    }) do
        mt.echo(what .. " " .. tostring(mt.eom_check(conn, _G[what])))
    end
    return mt.getheader(conn, "DKIM-Signature", 0)
end

local HEADERS = {
    { "From", "Sender <sender@example.test>" },
    { "To", "one@local.test,\n\ttwo@local.test" },
    { "Subject", "  a test,\n folded " },
    { "Date", "Tue, 22 Dec 2009 13:04:12 -0800" },
    { "X-Eight", "caf\xe9" },
}

local function signed(signature)
    local headers = { { "DKIM-Signature", signature } }
    for _, header in ipairs(HEADERS) do
        headers[#headers + 1] = header
    end
    return headers
end

mt.set_timeout(30)

-- From inside: signed. Three messages on one connection, one of them given up in the middle.
local conn = open("localhost", "127.0.0.1")
local signature = message(conn, "signed", HEADERS, { BODY })
assert(signature ~= nil, "not signed")
begin(conn, "given-up", HEADERS)
check(mt.abort(conn), "abort")
local large = string.rep("0123456789 abcdefghijklmnopqrstuvwxyz\r\n", 800)
local large_signature = message(conn, "large", HEADERS, { large, large, large, "the end\r\n" })
message(conn, "empty", HEADERS, {})
message(conn, "not ours", { { "From", "other@elsewhere.test" } }, { BODY })
mt.disconnect(conn)

-- From outside: verified, as sent, and with one byte changed.
conn = open("outside.test", "192.0.2.1")
message(conn, "verified", signed(signature), { BODY })
message(conn, "changed", signed(signature), { BODY, "x" })
message(conn, "in two chunks", signed(large_signature), { large .. large:sub(1, 1000),
    large:sub(1001) .. large, "the end\r\n" })
message(conn, "none", HEADERS, { BODY })
message(conn, "forged", {
    { "Authentication-Results", "mx.local.test; dkim=pass header.d=example.test" },
    { "From", "sender@example.test" },
    { "Authentication-Results", "elsewhere.test; dkim=pass" },
    { "Authentication-Results", "mx.local.test; dkim=pass header.d=example.test" },
}, { BODY })
message(conn, "no from", { { "Subject", "no sender" } }, { BODY })
mt.disconnect(conn)

-- A connection that is cut in the middle, and one without an address.
conn = open("outside.test", "192.0.2.1")
begin(conn, "cut", HEADERS)
mt.disconnect(conn, false)
conn = open("somewhere", "unspec")
message(conn, "unknown family", HEADERS, { BODY })
mt.disconnect(conn)
mt.echo("done")
