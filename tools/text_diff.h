// What changed between two texts, line by line.
#pragma once

#include <string>
#include <string_view>

namespace quorate::tools {

// The lines of both, in order: `-` before those only in `a`, `+` before those only in `b`, a blank
// before those in both. Unchanged lines farther than `context` from a change are left out, "..." in
// their place. Empty: no difference. Of texts of more than 2,000 changed lines no common lines are
// looked for. A last line without an end is told by a line `\ no newline at the end`.
std::string DiffLines(std::string_view a, std::string_view b, size_t context = 3);

}  // namespace quorate::tools
