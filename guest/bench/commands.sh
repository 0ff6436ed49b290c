# 500 short commands, each a process of its own (the paths keep busybox from running its applets inside the shell).
i=0
while [ $i -lt 100 ]; do
    /bin/true
    /bin/echo $i >/dev/null
    /bin/basename /usr/lib/file.$i .$i
    /bin/expr $i \* 3 + 1
    /bin/cat /bench/commands.sh >/dev/null
    i=$((i + 1))
done
