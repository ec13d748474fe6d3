#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace moelora {

// One release (or state) of a server that changed what happens to an adapter.
struct Release {
  std::string_view version;  // "0.5.10rc0"
  std::string_view date;     // "2026-03-24"
};

// The version a check runs for: a release number or a date, as the user gave it ("0.5.18",
// "2025-11-30"). Numbers compare as numbers, an rc sorts before its release; a date compares with
// the dates of releases.
class EngineVersion {
 public:
  // nullopt for a text that is neither a version nor a date.
  static std::optional<EngineVersion> parse(std::string_view text);

  const std::string& text() const { return text_; }
  bool is_date() const { return is_date_; }

  // Whether this version has what came with `release`.
  bool has(const Release& release) const;

 private:
  std::string text_;
  bool is_date_ = false;
};

// <0, 0, >0 as `a` is older than, the same as or newer than `b`; both are version numbers such as
// "0.5.10rc0", or both dates.
int compare_versions(std::string_view a, std::string_view b);

}  // namespace moelora
