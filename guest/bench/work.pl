# The Perl workload: hashes, sorting, regular expressions, string building. Argument: units.
use strict;
use warnings;

sub unit {
    my (%count, $x);
    $x = 1;
    for (1 .. 4000) {
        $x = ($x * 69069 + 1) % 4294967296;
        $count{ sprintf "%03x", $x >> 20 }++;
    }
    my @top = sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count;
    my $text = join " ", map { "word$_ is " . ($_**2) . ";" } 1 .. 600;
    my $matches = () = $text =~ /\bword(\d+) is (\d*[05]);/g;
    (my $swapped = $text) =~ s/(\w+) is (\d+)/$2 = $1/g;
    my %length;
    push @{ $length{ length $_ } }, $_ for split /\W+/, $swapped;
    my $lengths = join ",", map { $_ . ":" . scalar @{ $length{$_} } } sort { $a <=> $b } keys %length;
    return join " ", @top[ 0 .. 7 ], $matches, unpack("%32C*", $swapped), $lengths;
}

my $first = unit();
for (2 .. $ARGV[0]) {
    die "unit $_\n" if unit() ne $first;
}
print "$first\n";
