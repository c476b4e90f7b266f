#include "tools/flags.h"

#include <charconv>

namespace quorate::tools {
namespace {

using std::chrono::milliseconds;

constexpr int64_t kDayMs = 24LL * 3600 * 1000;
constexpr milliseconds kTimeMax(366 * kDayMs);

}  // namespace

std::optional<milliseconds> ParseTime(std::string_view text) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || number < 0 || number > kTimeMax.count()) return std::nullopt;
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  const int64_t ms = unit == "ms"  ? 1
                     : unit == "s" ? 1000
                     : unit == "m" ? 60'000
                     : unit == "h" ? 3'600'000
                     : unit == "d" ? kDayMs
                                   : 0;
  if (ms == 0 || number > kTimeMax.count() / ms) return std::nullopt;
  return milliseconds(number * ms);
}

CLI::Validator TimeWithin(milliseconds min, milliseconds max) {
  return CLI::Validator(
      [min, max](const std::string& text) -> std::string {
        const auto time = ParseTime(text);
        if (time && *time >= min && *time <= max) return "";
        return "`" + text + "`: write a whole number and ms, s, m, h or d, such as 10s" +
               (time ? *time < min ? ", not so little" : ", not so much" : "");
      },
      "TIME");
}

v1::ReadOptions ReadFlags::AddedTo(v1::ReadOptions options) const {
  options.set_min_revision(min_revision);
  if (!max_staleness.empty()) {
    const int64_t ms = ParseTime(max_staleness).value_or(milliseconds(0)).count();
    options.mutable_max_staleness()->set_seconds(ms / 1000);
    options.mutable_max_staleness()->set_nanos(static_cast<int32_t>(ms % 1000) * 1'000'000);
  }
  options.set_at_revision(at_revision);
  return options;
}

void AddReadFlags(CLI::App* command, ReadFlags* flags, bool past) {
  command
      ->add_option("--min-revision", flags->min_revision,
                   "wait until the node shows this revision: your own write, or what you have seen")
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--max-staleness", flags->max_staleness,
                   "refuse an answer that may be older than this: 500ms, 10s, 1h")
      ->check(TimeWithin(milliseconds(0), kTimeMax));
  if (!past) return;
  command->add_option("--at-revision", flags->at_revision, "the state as it was at this revision")
      ->check(CLI::PositiveNumber);
}

void AddWriteFlags(CLI::App* command, WriteFlags* flags, bool noted) {
  if (noted) command->add_option("--note", flags->note, "why; kept in the history");
  CLI::Option* id = command->add_option(
      "--request-id", flags->request_id,
      "names this write, so that the same command run again within ten minutes is not done twice, "
      "and with --request-revision never; best random (default: one of its own for each run)");
  command
      ->add_option("--request-revision", flags->request_revision,
                   "a revision seen before the write was first tried, the same for its repeats: "
                   "one that comes too late to be known is then refused")
      ->check(CLI::PositiveNumber)
      ->needs(id);
}

}  // namespace quorate::tools
