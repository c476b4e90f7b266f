#include "tools/text.h"

#include <cstdio>

#include "services/utf8.h"

namespace quorate::tools {

std::string Printable(std::string_view text, size_t width_max) {
  std::string out;
  size_t width = 0;
  size_t cut_at = 0;  // where "..." would go
  for (size_t i = 0; i < text.size();) {
    const size_t length = services::Utf8SequenceLength(text.substr(i));
    const auto byte = static_cast<unsigned char>(text[i]);
    std::string piece;
    if (byte == '\n') {
      piece = "\\n";
    } else if (byte == '\t') {
      piece = "\\t";
    } else if (byte == '\r') {
      piece = "\\r";
    } else if (byte == '\\') {
      piece = "\\\\";
    } else if (length == 0 || byte < 0x20 || byte == 0x7f) {
      char hex[8];
      std::snprintf(hex, sizeof hex, "\\x%02x", byte);
      piece = hex;
    } else if (length == 2 && byte == 0xc2 && static_cast<unsigned char>(text[i + 1]) < 0xa0) {
      char hex[12];  // the C1 controls, U+0080 to U+009F, drive terminals as well
      std::snprintf(hex, sizeof hex, "\\xc2\\x%02x", static_cast<unsigned char>(text[i + 1]));
      piece = hex;
    } else {
      piece = std::string(text.substr(i, length));
    }
    const size_t piece_width = Width(piece);
    if (width_max != 0 && width + piece_width > width_max) {
      out.resize(cut_at);
      return out + "...";
    }
    width += piece_width;
    out += piece;
    if (width + 3 <= width_max) cut_at = out.size();
    i += length == 0 ? 1 : length;
  }
  return out;
}

size_t Width(std::string_view text) {
  size_t width = 0;
  for (const char c : text) {
    if ((static_cast<unsigned char>(c) & 0xc0) != 0x80) ++width;
  }
  return width;
}

std::string FormatBytes(uint64_t bytes) {
  if (bytes < 1024) return std::to_string(bytes) + " B";
  constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  while (value >= 1024 && unit < 5) {
    value /= 1024;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, "%.1f %s", value, kUnits[unit]);
  return text;
}

std::string FormatDuration(std::chrono::milliseconds duration) {
  const long long ms = duration.count();
  char text[48];
  if (ms < 1000) {
    std::snprintf(text, sizeof text, "%lldms", ms);
  } else if (ms < 60'000) {
    std::snprintf(text, sizeof text, "%.1fs", static_cast<double>(ms) / 1000);
  } else if (ms < 3'600'000) {
    std::snprintf(text, sizeof text, "%lldm%02llds", ms / 60'000, ms / 1000 % 60);
  } else {
    std::snprintf(text, sizeof text, "%lldh%02lldm", ms / 3'600'000, ms / 60'000 % 60);
  }
  return text;
}

}  // namespace quorate::tools
