#include "ingress/watch_messages.h"

#include <utility>

#include "base/check.h"
#include "base/ids.h"

namespace quorate::ingress {
namespace {

void SetValue(bool is_text, const std::string& value, v1::Item* item) {
  if (is_text) {
    item->set_text(value);
  } else {
    item->set_data(value);
  }
}

void SetItem(const Change& change, v1::Item* item) {
  item->set_key(change.key);
  item->set_mod_revision(change.revision.value());
  if (change.deleted) return;
  SetValue(change.is_text, change.value, item);
  item->set_create_revision(change.create_revision.value());
  item->set_version(change.version);
  if (change.ttl != 0) item->set_ttl_id(ToHex(change.ttl));
}

void AddEvent(const Change& change, bool with_previous, v1::WatchResponse* message) {
  v1::WatchEvent* event = message->add_events();
  event->set_type(change.deleted ? v1::WatchEvent::TYPE_DELETE : v1::WatchEvent::TYPE_PUT);
  event->set_created(change.created());
  SetItem(change, event->mutable_item());
  if (!with_previous || !change.previous) return;
  v1::Item* previous = event->mutable_previous();
  previous->set_key(change.key);
  SetValue(change.previous->is_text, change.previous->value, previous);
  previous->set_create_revision(change.previous->create_revision.value());
  previous->set_mod_revision(change.previous->mod_revision.value());
  previous->set_version(change.previous->version);
  if (change.previous->ttl != 0) previous->set_ttl_id(ToHex(change.previous->ttl));
}

SharedBytes Serialize(const v1::WatchResponse& message) {
  auto bytes = std::make_shared<std::string>();
  CHECK(message.SerializeToString(bytes.get()));
  return bytes;
}

// One message: `message` and where it ends.
EncodedEvents Finish(v1::WatchResponse* message, Revision revision, ChangePosition after) {
  EncodedEvents encoded;
  encoded.revision = revision;
  encoded.after = after;
  encoded.partial = after.revision == revision;
  encoded.events = static_cast<uint64_t>(message->events_size());
  message->set_partial(encoded.partial);
  message->set_resume_revision(after.revision.value());
  encoded.body = Serialize(*message);
  message->Clear();
  return encoded;
}

}  // namespace

std::vector<EncodedEvents> EncodeChanges(const EncodeOptions& options, ChangePosition begin,
                                         const std::vector<const Change*>& changes,
                                         ChangePosition end, bool open) {
  CHECK(begin <= end);
  std::vector<EncodedEvents> out;
  v1::WatchResponse message;
  // Where the rest of `revision` ends: at its end, or, when the portion was cut, before.
  const auto ends_at = [&](Revision revision) {
    return revision < end.revision ? ChangePosition{revision + 1, 0} : end;
  };
  if (open && begin.revision < end.revision &&
      (changes.empty() || changes.front()->revision != begin.revision)) {
    out.push_back(Finish(&message, begin.revision, ends_at(begin.revision)));
  }
  size_t bytes = 0;
  for (size_t i = 0; i < changes.size(); ++i) {
    const Change& change = *changes[i];
    CHECK(begin <= change.position() && change.position() < end);
    AddEvent(change, options.with_previous, &message);
    bytes += change.bytes();
    const Change* next = i + 1 < changes.size() ? changes[i + 1] : nullptr;
    if (next == nullptr || next->revision != change.revision) {
      out.push_back(Finish(&message, change.revision, ends_at(change.revision)));
      bytes = 0;
    } else if (bytes + next->bytes() > options.message_bytes) {
      out.push_back(Finish(&message, change.revision, next->position()));
      bytes = 0;
    }
  }
  return out;
}

std::vector<SharedBytes> EncodeState(const EncodeOptions& options,
                                     const std::vector<Change>& items) {
  std::vector<SharedBytes> out;
  v1::WatchResponse message;
  size_t bytes = 0;
  for (const Change& item : items) {
    if (bytes > 0 && bytes + item.bytes() > options.message_bytes) {
      out.push_back(Serialize(message));
      message.Clear();
      bytes = 0;
    }
    v1::WatchEvent* event = message.add_events();
    event->set_type(v1::WatchEvent::TYPE_PUT);
    SetItem(item, event->mutable_item());
    bytes += item.bytes();
  }
  if (bytes > 0) out.push_back(Serialize(message));
  return out;
}

SharedBytes EncodeMark(const v1::WatchResponse& mark, Revision resume) {
  v1::WatchResponse message = mark;
  message.set_resume_revision(resume.value());
  return Serialize(message);
}

}  // namespace quorate::ingress
