#include "tools/text_diff.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace quorate::tools {
namespace {

constexpr size_t kTableLinesMax = 2000;

using Lines = std::vector<std::string_view>;

// Each with its line end, so that a missing one is a difference.
Lines Split(std::string_view text) {
  Lines lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size() - 1) + 1;
    lines.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  return lines;
}

struct Marked {
  char mark;
  std::string_view line;
};

// The longest common subsequence by the table of all pairs (Wagner and Fischer).
void Middle(const Lines& a, const Lines& b, std::vector<Marked>* out) {
  const size_t width = b.size() + 1;
  std::vector<uint16_t> common(
      a.size() <= kTableLinesMax && b.size() <= kTableLinesMax ? (a.size() + 1) * width : 0);
  if (common.empty()) {
    for (const std::string_view line : a) out->push_back({'-', line});
    for (const std::string_view line : b) out->push_back({'+', line});
    return;
  }
  for (size_t i = a.size(); i-- > 0;) {
    for (size_t k = b.size(); k-- > 0;) {
      common[i * width + k] =
          a[i] == b[k] ? static_cast<uint16_t>(common[(i + 1) * width + k + 1] + 1)
                       : std::max(common[(i + 1) * width + k], common[i * width + k + 1]);
    }
  }
  size_t i = 0;
  size_t k = 0;
  while (i < a.size() || k < b.size()) {
    if (i < a.size() && k < b.size() && a[i] == b[k]) {
      out->push_back({' ', a[i++]});
      ++k;
    } else if (k == b.size() ||
               (i < a.size() && common[(i + 1) * width + k] >= common[i * width + k + 1])) {
      out->push_back({'-', a[i++]});
    } else {
      out->push_back({'+', b[k++]});
    }
  }
}

}  // namespace

std::string DiffLines(std::string_view a, std::string_view b, size_t context) {
  if (a == b) return "";
  Lines left = Split(a);
  Lines right = Split(b);
  size_t same = 0;
  while (same < left.size() && same < right.size() && left[same] == right[same]) ++same;
  size_t tail = 0;
  while (same + tail < left.size() && same + tail < right.size() &&
         left[left.size() - 1 - tail] == right[right.size() - 1 - tail]) {
    ++tail;
  }
  std::vector<Marked> marked;
  for (size_t i = 0; i < same; ++i) marked.push_back({' ', left[i]});
  Middle(Lines(left.begin() + static_cast<long>(same), left.end() - static_cast<long>(tail)),
         Lines(right.begin() + static_cast<long>(same), right.end() - static_cast<long>(tail)),
         &marked);
  for (size_t i = left.size() - tail; i < left.size(); ++i) marked.push_back({' ', left[i]});

  std::vector<bool> shown(marked.size(), false);
  for (size_t i = 0; i < marked.size(); ++i) {
    if (marked[i].mark == ' ') continue;
    const size_t end = std::min(marked.size(), i + context + 1);
    for (size_t k = i - std::min(i, context); k < end; ++k) shown[k] = true;
  }
  std::string text;
  for (size_t i = 0; i < marked.size(); ++i) {
    if (!shown[i]) {
      if (i == 0 || shown[i - 1]) text += "...\n";
      continue;
    }
    text += marked[i].mark;
    text += marked[i].line;
    if (marked[i].line.back() != '\n') text += "\n\\ no newline at the end\n";
  }
  return text;
}

}  // namespace quorate::tools
