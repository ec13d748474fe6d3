#include "lib/engine/release.h"

#include <algorithm>
#include <array>
#include <cstdint>

#include "lib/adapter/tensor_name.h"

namespace moelora {
namespace {

// A version number as what it sorts by: its numbers, then the rc (a release counts as the last
// one).
struct Parts {
  std::array<int64_t, 4> numbers{};
  int64_t candidate = INT64_MAX;
  friend auto operator<=>(const Parts&, const Parts&) = default;
};

std::optional<Parts> parse_parts(std::string_view text) {
  Parts out;
  if (const size_t rc = text.find("rc"); rc != std::string_view::npos) {
    const auto candidate = parse_index(text.substr(rc + 2));
    if (!candidate) return std::nullopt;
    out.candidate = *candidate;
    text = text.substr(0, rc);
  }
  for (int64_t& number : out.numbers) {
    const size_t dot = text.find('.');
    const auto value = parse_index(text.substr(0, dot));
    if (!value) return std::nullopt;
    number = *value;
    if (dot == std::string_view::npos) return out;
    text = text.substr(dot + 1);
  }
  return std::nullopt;
}

bool looks_like_date(std::string_view text) {
  constexpr std::string_view kForm = "dddd-dd-dd";
  return text.size() == kForm.size() &&
         std::equal(text.begin(), text.end(), kForm.begin(), [](char c, char form) {
           return form == 'd' ? c >= '0' && c <= '9' : c == form;
         });
}

}  // namespace

std::optional<EngineVersion> EngineVersion::parse(std::string_view text) {
  EngineVersion out;
  out.text_ = text;
  out.is_date_ = looks_like_date(text);
  if (!out.is_date_ && !parse_parts(text)) return std::nullopt;
  return out;
}

bool EngineVersion::has(const Release& release) const {
  return compare_versions(text_, is_date_ ? release.date : release.version) >= 0;
}

int compare_versions(std::string_view a, std::string_view b) {
  if (looks_like_date(a) || looks_like_date(b)) return a.compare(b);
  const Parts left = parse_parts(a).value_or(Parts{}), right = parse_parts(b).value_or(Parts{});
  return left < right ? -1 : left > right ? 1 : 0;
}

}  // namespace moelora
