perl - <<'PERL'
use strict; use warnings;
my %count; my $x = 1;
for (1 .. 20000) { $x = ($x * 69069 + 1) % 4294967296; $count{ sprintf "%03x", $x >> 20 }++ }
my @top = sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count;
print "hash @top[0..7]\n";
my $text = join " ", map { "word$_ is " . ($_ ** 2) . ";" } 1 .. 500;
my $n = () = $text =~ /\bword(\d+) is (\d*[05]);/g;
(my $swapped = $text) =~ s/(\w+) is (\d+)/$2 = $1/g;
print "regex $n ", unpack("%32C*", $swapped), "\n";
printf "float %.15g %.15g %s\n", atan2(1, 1) * 4, exp(1) ** 20, 10 ** 20;
print join(",", sort { $a <=> $b } map { ($_ * 7919) % 101 } 1 .. 30), "\n";
print scalar reverse("nolodie"), " ", pack("N", 0x45494430), " ", join(":", unpack("(A2)*", "aabbcc")), "\n";
PERL
