// Invite an attendee to an event: `node invite.js EVENT ATTENDEE`.
import { Client } from "./callboard.js";

const [eventId = "", attendeeId = ""] = process.argv.slice(2);
const client = new Client({
  url: process.env.CALLBOARD_URL ?? "",
  token: process.env.CALLBOARD_TOKEN ?? "",
  retries: 3,
});
const result = await client.call("inviteAttendee", { eventId, attendeeId });
console.log(result.success ? "invited" : `Not invited: ${result.error}`);
