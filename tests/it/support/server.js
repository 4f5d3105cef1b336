// A backend for the tests: GET /length/N and /chunked/N send N bytes, PUT answers the SHA-256 of what came.
const http = require("http");
const crypto = require("crypto");

// The same bytes as in bodies.rs.
const sums = [];
for (let i = 0; i < 2039; i++) sums.push(crypto.createHash("sha256").update(String(i)).digest());
const BLOCK = Buffer.concat(sums);

function send(response, left) {
  while (left > 0) {
    const piece = BLOCK.subarray(0, Math.min(left, BLOCK.length));
    left -= piece.length;
    if (!response.write(piece) && left > 0) {
      response.once("drain", () => send(response, left));
      return;
    }
  }
  response.end();
}

const server = http.createServer((request, response) => {
  if (request.url === "/health") {
    response.end("ok");
  } else if (request.method === "PUT") {
    const digest = crypto.createHash("sha256");
    request.on("data", (piece) => digest.update(piece));
    request.on("end", () => response.end(digest.digest("hex")));
  } else {
    const [, framing, length] = request.url.split("/");
    if (framing === "length") response.setHeader("Content-Length", length);
    else response.setHeader("Transfer-Encoding", "chunked");
    send(response, Number(length));
  }
});
server.listen(0, "127.0.0.1", () => console.log(`listening on 127.0.0.1:${server.address().port}`));
