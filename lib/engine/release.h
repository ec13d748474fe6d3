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

// The version a check runs for, as people have it: a release number ("0.5.18", "v0.22.1",
// "0.23.1rc1.dev1403+g0123abc"), a date or a month ("2025-11-30", "2026-11"), or the branch
// ("main", "nightly"), which is later than all that is known. Numbers compare as PEP 440 says; a
// date compares with the dates of releases.
class EngineVersion {
 public:
  // nullopt for a text that is neither a version nor a date.
  static std::optional<EngineVersion> parse(std::string_view text);

  const std::string& text() const { return text_; }  // without the v
  bool is_date() const { return !day_.empty(); }
  bool is_development() const;  // a build between releases, judged as the one before it
  // Whether this date is later than the day; a month that the day is in is not.
  bool is_after(std::string_view day) const;  // REQUIRES is_date()

  // Whether this version has what came with `release`.
  bool has(const Release& release) const;

 private:
  std::string text_, day_;  // day_: "" for a number
};

// <0, 0, >0 as `a` is older than, the same as or newer than `b`; both are version numbers such as
// "0.5.10rc0", or both dates.
int compare_versions(std::string_view a, std::string_view b);

}  // namespace moelora
