// The watch hub against its brute-force twin: random writes, clients that read slowly, vanish and
// come back, reads that are late, changes that nobody collected, compaction, snapshots. Whatever
// happened, each client's whole story (over all its streams) is judged at the end by the nine
// guarantees, each by itself.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/ingress/watch_world.h"

namespace quorate::ingress::testing {
namespace {

using Events = std::vector<v1::WatchEvent>;

// One client over all its streams: how it would keep a copy of what it watches.
struct Story {
  WatchSpec spec;  // of the first stream
  std::string name;
  WatchWorld::Client* stream = nullptr;
  size_t read = 0;  // messages of `stream` that are in here already
  uint64_t resume = 0;
  bool heard = false;   // anything at all
  uint64_t begins = 0;  // the first revision that must be told
  // Events between two resets: `from` is the revision after which they are complete.
  struct Span {
    uint64_t from = 0;
    std::optional<std::map<std::string, std::string>>
        state;                             // with what it began; nullopt: nothing
    std::map<uint64_t, Events> revisions;  // whole ones
    std::vector<uint64_t> order;           // of arrival
    uint64_t through = 0;                  // nothing up to it is missing
  };
  std::vector<Span> spans;
  bool in_state = false;
  std::map<std::string, std::string> state;
  Events part;
};

class WatchRandom : public ::testing::TestWithParam<int> {
 protected:
  uint64_t Below(uint64_t n) { return std::uniform_int_distribution<uint64_t>(0, n - 1)(random_); }
  bool Chance(int percent) { return Below(100) < static_cast<uint64_t>(percent); }

  std::string Key() {
    static const char* const kKeys[] = {"a", "a/1", "a/2", "ab", "b", "b/1", "b/1/x", "c"};
    return kKeys[Below(std::size(kKeys))];
  }

  void Write() {
    std::vector<TwinStore::Write> writes;
    const uint64_t count = Chance(20) ? 1 + Below(6) : 1;
    for (uint64_t i = 0; i < count; ++i) {
      const std::string key = Key();
      if (Chance(30)) {
        writes.push_back({key, std::nullopt});
      } else {
        writes.push_back({key, std::to_string(++value_) + std::string(Below(120), 'x')});
      }
    }
    const uint64_t how = Below(20);
    world_.Apply(writes, how == 0   ? WatchWorld::Heard::kHeadOnly
                         : how == 1 ? WatchWorld::Heard::kWithoutPrevious
                         : how == 2 ? WatchWorld::Heard::kNothing
                                    : WatchWorld::Heard::kAll);
  }

  void Open(Story& story) {
    WatchSpec spec = story.spec;
    if (story.resume != 0) {
      spec.start_revision = story.resume;
      spec.with_initial_state = false;
    } else if (story.heard) {  // a state was cut off
      spec.start_revision = 0;
      spec.with_initial_state = true;
    }
    story.in_state = false;
    story.part.clear();
    story.stream = &world_.Watch(story.name, spec);
    story.read = 0;
    world_.SetSlow(*story.stream, Chance(40));
  }

  void NewStory() {
    Story story;
    story.name = "c" + std::to_string(stories_.size());
    story.spec.filter.is_prefix = Chance(70);
    story.spec.filter.text = story.spec.filter.is_prefix && Chance(30) ? "" : Key();
    story.spec.with_previous = Chance(50);
    story.spec.with_initial_state = Chance(40);
    if (!story.spec.with_initial_state && Chance(60)) {
      story.spec.start_revision = 1 + Below(world_.store().head().value() + 1);
    }
    story.begins = story.spec.start_revision;
    stories_.push_back(std::move(story));
    Open(stories_.back());
  }

  // Takes in what the stream has brought.
  void Listen(Story& story) {
    for (; story.read < story.stream->got.size(); ++story.read) {
      Hear(story, story.stream->got[story.read]);
    }
  }

  void Hear(Story& story, const v1::WatchResponse& message) {
    const uint64_t revision = message.header().revision();
    if (story.read == 0) {
      ASSERT_TRUE(message.started());
    }
    if (message.started()) {
      const bool initial = story.stream->spec.with_initial_state;
      if (!story.heard && !initial) {
        Story::Span span;
        span.from = span.through = revision;
        if (story.begins != 0) {
          EXPECT_EQ(revision, story.begins - 1);
        }
        story.spans.push_back(span);
      }
      story.heard = true;
      story.in_state = initial;
      story.state.clear();
      if (story.resume != 0) {
        EXPECT_EQ(message.resume_revision(), story.resume) << "a resumed stream goes on elsewhere";
      }
    } else if (message.reset()) {
      story.in_state = true;
      story.state.clear();
      story.part.clear();
    } else if (message.synced()) {
      ASSERT_TRUE(story.in_state);
      story.in_state = false;
      Story::Span span;
      span.from = span.through = revision;
      span.state = story.state;
      story.spans.push_back(span);
    } else if (message.leader_lost() && !message.progress()) {
      EXPECT_TRUE(message.events().empty());
    } else if (message.leader_found()) {
      EXPECT_TRUE(message.events().empty());
    } else if (message.progress()) {
      ASSERT_FALSE(story.in_state);
      EXPECT_TRUE(message.events().empty());
      story.spans.back().through = std::max(story.spans.back().through, revision);
    } else if (story.in_state) {
      EXPECT_GT(message.events_size(), 0);
      for (const v1::WatchEvent& event : message.events()) {
        EXPECT_TRUE(story.state.emplace(event.item().key(), event.item().text()).second)
            << "an item twice in one state";
      }
    } else {
      story.part.insert(story.part.end(), message.events().begin(), message.events().end());
      EXPECT_EQ(message.resume_revision(), message.partial() ? revision : revision + 1);
      if (!message.partial()) {
        Story::Span& span = story.spans.back();
        // The stream may have broken within this revision and told it again from its beginning.
        EXPECT_FALSE(span.revisions.contains(revision)) << "revision " << revision << " twice";
        span.revisions[revision] = std::exchange(story.part, {});
        span.order.push_back(revision);
        span.through = revision;
      }
    }
    story.resume = message.resume_revision();
  }

  // What must have been told of one revision, by the twin's history.
  Events Wanted(const Story& story, const ChangeSet& set) {
    Events events;
    for (const Change& change : set.changes) {
      if (!story.spec.filter.Matches(change.key)) continue;
      v1::WatchEvent event;
      event.set_type(change.deleted ? v1::WatchEvent::TYPE_DELETE : v1::WatchEvent::TYPE_PUT);
      event.mutable_item()->set_key(change.key);
      if (!change.deleted) event.mutable_item()->set_text(change.value);
      events.push_back(event);
    }
    return events;
  }

  void Judge(const Story& story) {
    SCOPED_TRACE(story.name + " of " + story.spec.filter.text);
    ASSERT_FALSE(story.spans.empty());
    for (const Story::Span& span : story.spans) {
      // Filter: nothing that was not asked for.
      for (const auto& [revision, events] : span.revisions) {
        for (const v1::WatchEvent& event : events) {
          EXPECT_TRUE(story.spec.filter.Matches(event.item().key()));
          // Atomic: an event is told with its revision and no other.
          EXPECT_EQ(event.item().mod_revision(), revision);
        }
      }
      // Ordered, and unique: strictly increasing revisions.
      EXPECT_TRUE(std::is_sorted(span.order.begin(), span.order.end()));
      EXPECT_EQ(std::adjacent_find(span.order.begin(), span.order.end()), span.order.end());
      // A state is that of its revision.
      if (span.state) {
        std::map<std::string, std::string> state;
        for (const auto& [key, item] :
             world_.store().StateAt(Revision(span.from), story.spec.filter)) {
          state[key] = item.value;
        }
        EXPECT_EQ(*span.state, state) << "the state at " << span.from;
      }
      for (const ChangeSetPtr& set : world_.store().history()) {
        const uint64_t revision = set->revision.value();
        const Events wanted = Wanted(story, *set);
        const auto told = span.revisions.find(revision);
        if (revision <= span.from || revision > span.through || wanted.empty()) {
          if (revision <= span.from || wanted.empty()) {
            EXPECT_EQ(told, span.revisions.end()) << "told without need: " << revision;
          }
          continue;
        }
        // Reliable, resumable and bookmarkable: nothing between begin and bookmark is missing,
        // whatever streams it came through.
        ASSERT_NE(told, span.revisions.end()) << "missing: " << revision;
        // Atomic: all of it, in its order.
        ASSERT_EQ(told->second.size(), wanted.size()) << "revision " << revision;
        size_t i = 0;
        for (const Change& change : set->changes) {
          if (!story.spec.filter.Matches(change.key)) continue;
          const v1::WatchEvent& event = told->second[i++];
          EXPECT_EQ(event.item().key(), change.key);
          EXPECT_EQ(event.item().text(), change.value);
          // Creation flag.
          EXPECT_EQ(event.created(), !change.deleted && !change.previous);
          // With-previous.
          EXPECT_EQ(event.has_previous(), story.spec.with_previous && change.previous);
          if (event.has_previous()) {
            EXPECT_EQ(event.previous().text(), change.previous->value);
            EXPECT_EQ(event.previous().mod_revision(), change.previous->mod_revision.value());
            EXPECT_EQ(event.previous().version(), change.previous->version);
          }
        }
      }
    }
  }

  std::mt19937_64 random_{static_cast<uint64_t>(GetParam())};
  uint64_t value_ = 0;
  WatchWorld world_;
  std::deque<Story> stories_;
};

TEST_P(WatchRandom, NothingIsLostAndNothingComesTwice) {
  WatchHubOptions options;
  options.queue_messages_max = 1 + Below(5);
  options.queue_bytes_max = 200 + Below(2000);
  options.total_bytes_max = 500 + Below(5000);
  options.message_bytes = 1 + Below(400);
  options.in_flight_bytes_max = 1 + Below(2000);
  options.read_bytes_max = 1 + Below(600);
  options.read_rows_max = 1 + Below(10);
  options.reads_max = 1 + Below(3);
  world_.Make(options);
  bool held = false;
  for (int step = 0; step < 800; ++step) {
    const uint64_t what = Below(100);
    if (what < 50) {
      Write();
    } else if (what < 55 && stories_.size() < 12) {
      NewStory();
    } else if (what < 75 && !stories_.empty()) {
      Story& story = stories_[Below(stories_.size())];
      Listen(story);
      if (story.stream->ended || Chance(15)) {
        if (!story.stream->ended) world_.Cancel(*story.stream);
        Open(story);
      } else {
        world_.Take(*story.stream);
      }
    } else if (what < 80 && !stories_.empty()) {
      Story& story = stories_[Below(stories_.size())];
      if (!story.stream->ended) world_.SetSlow(*story.stream, Chance(60));
    } else if (what < 83) {
      held = Chance(50);
      world_.HoldReads(held);
    } else if (what < 90) {
      if (!world_.reads().empty()) {
        if (Chance(10)) world_.next_failure = WatchHub::ReadFailure::kBusy;
        world_.Serve();
        world_.next_failure.reset();
      }
    } else if (what < 92) {
      const uint64_t head = world_.store().head().value();
      world_.store().Compact(Revision(head - std::min(head, Below(40))));
    } else if (what == 92 && Chance(30)) {
      world_.hub().OnReset(world_.now(), world_.store().head(), world_.store().compacted());
      world_.Pump();
    } else if (what < 95) {
      world_.hub().OnLeader(world_.now(), Chance(50));
      world_.Pump();
    } else {
      world_.Pass(std::chrono::milliseconds(Below(6000)));
    }
    EXPECT_LE(world_.hub().queued_bytes(),
              options.total_bytes_max + (options.reads_max + 1) * (options.read_bytes_max + 2500));
  }
  // Everybody reads now, to the end.
  world_.HoldReads(false);
  world_.Apply({{"last", "x"}});
  for (Story& story : stories_) {
    Listen(story);
    if (story.stream->ended) Open(story);
    world_.SetSlow(*story.stream, false);
  }
  world_.Pass(std::chrono::seconds(10));
  for (Story& story : stories_) {
    Listen(story);
    EXPECT_EQ(story.resume, world_.store().head().value() + 1) << story.name << " has not met it";
    Judge(story);
  }
  EXPECT_EQ(world_.hub().catching_up(), 0u);
  EXPECT_EQ(world_.hub().queued_bytes(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Seeds, WatchRandom, ::testing::Range(1, 25));

}  // namespace
}  // namespace quorate::ingress::testing
